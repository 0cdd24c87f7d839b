"""Facts about the machine of a measurement, and the files of results."""

import csv
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

COLUMNS = ("machine", "torch", "commit", "date", "load")
"""Columns of `facts`."""


def facts(threads: int, device: str = "cpu") -> dict[str, str]:
    """Return machine, versions, date, and the load of the previous five minutes.

    A ``+`` after the commit marks uncommitted changes.
    """
    import torch  # noqa: PLC0415 - what starts processes to time imports does without it

    machine = f"{processor()}; {threads} threads"
    return {
        "machine": machine if device == "cpu" else f"{torch.cuda.get_device_name()}; {machine}",
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.now(tz=UTC).date().isoformat(),
        "load": f"{os.getloadavg()[1]:.2f}",
    }


def commit() -> str:
    """Return the commit, with a ``+`` if code was changed since."""
    head = _git("rev-parse", "--short", "HEAD")
    # Ignore result files, because they do not affect the measurement.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks", ":!benchmarks/results")
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=RESULTS.parent.parent, capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout.strip()


def processor() -> str:
    """Return the name of the processor and its number of cores."""
    return f"{_model()}; {os.cpu_count()} cores"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows; keys that are not fields are omitted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file; empty if it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
