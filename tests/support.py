"""Reading what a run wrote, and running scripts as users do."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import pytest

from nissa.journal import line_files
from nissa.recordings.jsonl_reader import DamagedLine, json_lines
from nissa.recordings.values import attributes
from tests import preloaded

T = TypeVar("T")
ROOT = Path(__file__).parents[1]


def lines(path: Path) -> list[Any]:
    """Return the JSON lines of a file; every one must parse."""
    damaged: list[DamagedLine] = []
    found = [line.value for line in json_lines(path, damaged)]
    assert not damaged
    return found


@dataclass(frozen=True)
class Span:
    """A span as it was exported."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    links: list[tuple[str, str]]
    error: bool


def spans(folder: Path, name: str = "traces.jsonl") -> list[Span]:
    """Return the spans in a run's folder."""
    return [_span(span) for scope in _scopes(folder / name, "resourceSpans", "scopeSpans") for span in scope["spans"]]


def _scopes(path: Path, resources: str, scopes: str) -> Iterator[Any]:
    closed = line_files(path.parent, f"{path.stem}.")
    for line in (line for each in dict.fromkeys([*closed, path]) for line in lines(each)):
        for resource in line[resources]:
            yield from resource[scopes]


def _span(span: Mapping[str, Any]) -> Span:
    return Span(
        name=span["name"],
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId") or None,
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        attributes=attributes(span),
        events=[(each["name"], int(each["timeUnixNano"]), attributes(each)) for each in span.get("events", [])],
        links=[(each["traceId"], each["spanId"]) for each in span.get("links", [])],
        error=span.get("status", {}).get("code") == 2,
    )


def records(folder: Path, name: str = "logs.jsonl") -> list[dict[str, Any]]:
    """Return the log records in a run's folder."""
    return [record for scope in _scopes(folder / name, "resourceLogs", "scopeLogs") for record in scope["logRecords"]]


@dataclass(frozen=True)
class Point:
    """A data point as it was exported."""

    metric: str
    unit: str
    kind: str
    attributes: dict[str, Any]
    time: int
    start: int | None
    value: Any
    raw: dict[str, Any]


_KINDS = ("gauge", "sum", "histogram", "exponentialHistogram")


def points(folder: Path, metric: str | None = None, name: str = "metrics.jsonl") -> list[Point]:
    """Return the data points in a run's folder, oldest export first."""
    found = [
        _point(each, kind, point)
        for scope in _scopes(folder / name, "resourceMetrics", "scopeMetrics")
        for each in scope["metrics"]
        for kind in _KINDS
        if kind in each
        for point in each[kind].get("dataPoints", [])
    ]
    return [point for point in found if metric in (None, point.metric)]


def _point(metric: Mapping[str, Any], kind: str, point: dict[str, Any]) -> Point:
    value = int(point["asInt"]) if "asInt" in point else float(point.get("asDouble", "nan"))
    start = point.get("startTimeUnixNano")
    return Point(
        metric=metric["name"],
        unit=metric.get("unit", ""),
        kind=kind,
        attributes=attributes(point),
        time=int(point["timeUnixNano"]),
        start=None if start is None else int(start),
        value=value,
        raw=point,
    )


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
