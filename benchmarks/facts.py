"""What was measured where, and the files that results go to."""

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
"""The columns of `facts`."""


def facts(threads: int, device: str = "cpu") -> dict[str, str]:
    """Return machine, versions, day, and the machine's load over the five minutes before.

    A commit with a ``+`` had changes that are not committed.
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
    """Return the commit, with a ``+`` where code was changed since."""
    head = _git("rev-parse", "--short", "HEAD")
    # What a benchmark writes while it goes on changes nothing of what it measures.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks", ":!benchmarks/results")
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=RESULTS.parent.parent, capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout.strip()


def processor() -> str:
    """Return the processor's name and how many cores there are."""
    return f"{_model()}; {os.cpu_count()} cores"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows; what is no field is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file; none where there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
