"""Reading what a run wrote, and running scripts as users do."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import pytest

from nissa.journal import line_files
from nissa.recordings.jsonl_reader import DamagedLine, json_lines
from nissa.testing.records import Point, Span, points_of, records_of, spans_of
from tests import preloaded

T = TypeVar("T")
ROOT = Path(__file__).parents[1]


def lines(path: Path) -> list[Any]:
    """Return the JSON lines of a file; every one must parse."""
    damaged: list[DamagedLine] = []
    found = [line.value for line in json_lines(path, damaged)]
    assert not damaged
    return found


def spans(folder: Path, name: str = "traces.jsonl") -> list[Span]:
    """Return the spans in a run's folder."""
    return list(spans_of(_recorded(folder / name)))


def records(folder: Path, name: str = "logs.jsonl") -> list[dict[str, Any]]:
    """Return the log records in a run's folder."""
    return [record.raw for record in records_of(_recorded(folder / name))]


def points(folder: Path, metric: str | None = None, name: str = "metrics.jsonl") -> list[Point]:
    """Return the data points in a run's folder, oldest export first."""
    return [point for point in points_of(_recorded(folder / name)) if metric in (None, point.metric)]


def _recorded(path: Path) -> Iterator[Any]:
    closed = line_files(path.parent, f"{path.stem}.")
    return (line for each in dict.fromkeys([*closed, path]) for line in lines(each))


def script(
    body: str,
    *,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    unload: bool = False,
    bare: bool = False,
) -> preloaded.Process:
    """Start a Python script, which may import modules of tests, in a folder and a process of its own."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(body))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **(environ or {})}
    return preloaded.start([path], cwd=folder, env=env, unload=unload, bare=bare)


def finish(process: preloaded.Process, timeout: float = 90) -> tuple[int, str, str]:
    """Wait for a script and return its exit status, output and errors."""
    out, err = process.communicate(timeout=timeout)
    return process.wait(), out, err


def run_demo(folder: Path, environ: Mapping[str, str], *arguments: str) -> Any:
    """Run ``nissa demo`` as users do and return its report."""
    done = nissa("demo", "--json", *arguments, cwd=folder, env=environ, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def nissa(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the console script ``nissa`` to its end, in a process of its own."""
    return preloaded.run([Path(sys.executable).with_name("nissa"), *arguments], **how)


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder that all workers of a test run share."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


def only_run(folder: Path) -> Path:
    """Return the folder of the one run that was made below a folder."""
    (run,) = (folder / "nissa-runs").iterdir()
    return run


def until(look: Callable[[], T | None], what: str, timeout: float = 120) -> T:
    """Look again and again until something is there."""
    deadline = monotonic() + timeout
    while monotonic() < deadline:
        found = look()
        if found:
            return found
        sleep(0.02)
    raise AssertionError(f"gave up waiting for {what} after {timeout} s")
