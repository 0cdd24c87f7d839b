"""Interpreter time of an export: how long the export thread keeps other threads from running Python code.

``python -m benchmarks.export`` writes ``benchmarks/results/export.csv``. One export of at least 20,000 gauge points, as a run with
150 tensors collects them, is encoded and written by the sink of each mode. Compression and system calls release the
interpreter's lock; their time on the thread is measured apart and subtracted. Garbage collection is included.
"""

import argparse
import gzip
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import thread_time_ns, time_ns
from typing import Any
from unittest.mock import patch

import numpy as np
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.medians import median
from benchmarks.steps.rows import interval
from nissa.config.sections import FilesConfig
from nissa.hub.error_boundary import ErrorBoundary
from nissa.journal import SIGNALS, FileJournal, Spool
from nissa.otel.export.export_log import ExportLog
from nissa.otel.export.file_sink import FileSink
from nissa.otel.export.metric_reader import ExportReader
from nissa.otel.export.spool_sink import SpoolSink
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.store import MetricStore
from nissa.semconv import metrics as metric

FIELDS = (
    "mode",
    "points",
    "interpreter_ms",
    "interpreter_ms_low",
    "interpreter_ms_high",
    "total_ms",
    "released_ms",
    *COLUMNS,
)
PARAMETERS = 150
STEPS = 132
GOAL_MS = 10.0
_WARMUP = 2
"""Exports that fill caches."""


class _Nowhere:
    """Client whose receiver never answers."""

    def send(self, payload: bytes, *, gzipped: bool = True) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing."""


class Exporting:
    """A store that is filled and exported through one sink."""

    def __init__(self, folder: Path, mode: str) -> None:
        resource = Resource.create({"service.name": "benchmark", "nissa.run.id": "benchmark"})
        self.store = MetricStore(time_ns(), GaugeLog(1_000_000))
        self.reader = ExportReader(resource, {})
        self._producer = MetricProducer(
            self.store,
            InstrumentationScope("nissa", "0"),
            most_buckets=160,
            error_boundary=ErrorBoundary(),
        )
        self._producer.install(None, self.reader)
        self._resource = resource
        log = ExportLog(dict.fromkeys(SIGNALS, "nowhere"), str(folder))
        limits = FilesConfig()
        if mode == "spool":
            journal = Spool.create(folder, dict.fromkeys(SIGNALS, "nowhere"), limit_bytes=limits.max_spool_bytes)
            self.sink: Any = SpoolSink(journal, {"metrics": _Nowhere()}, wake=lambda: None, log=log)
        else:
            self.sink = FileSink(FileJournal.create(folder, "", limit_bytes=limits.max_bytes), log=log)
        self._rows = [{"nissa.parameter.name": f"blocks.{number}.weight"} for number in range(PARAMETERS)]
        self._generator = np.random.default_rng(0)

    def fill(self) -> int:
        """Record the steps between two exports; return the number of points."""
        now = time_ns()
        for step in range(STEPS):
            at = now + step * 1_000_000
            values = self._generator.lognormal(size=PARAMETERS)
            self.store.gauge_row(metric.GRADIENT_NORM, self._rows, at, values, group="model")
            for spec in (metric.STEP, metric.LOSS, metric.LEARNING_RATE):
                self.store.gauge(spec, {}, at, float(values[0]))
        return STEPS * (PARAMETERS + 3)

    def export(self) -> None:
        """Collect and write, as the export thread does."""
        data = self._producer.merge(None, self.reader, self._resource)
        assert data is not None  # noqa: S101 - it was filled
        self.sink.write_metrics(data)


class _Released:
    """Thread time within calls that release the interpreter's lock."""

    def __init__(self) -> None:
        self.nanoseconds = 0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = thread_time_ns()
            try:
                return call(*args, **kwargs)
            finally:
                self.nanoseconds += thread_time_ns() - began

        return wrapped

    @contextmanager
    def measured(self) -> "Iterator[None]":
        with (
            patch.object(gzip, "compress", self.timed(gzip.compress)),
            patch.object(os, "writev", self.timed(os.writev)),
        ):
            yield


def measure(mode: str, rounds: int) -> tuple[int, list[float], list[float], list[float]]:
    """Return the number of points, and milliseconds per export: interpreter, total, released."""
    interpreter, total, released = [], [], []
    points = 0
    with tempfile.TemporaryDirectory() as folder:
        exporting = Exporting(Path(folder) / "run", mode)
        for number in range(-_WARMUP, rounds):
            points = exporting.fill()
            apart = _Released()
            with apart.measured():
                began = thread_time_ns()
                exporting.export()
                took = thread_time_ns() - began
            if number >= 0:
                total.append(took / 1e6)
                released.append(apart.nanoseconds / 1e6)
                interpreter.append((took - apart.nanoseconds) / 1e6)
    return points, interpreter, total, released


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    machine_facts = facts(1)
    rows = []
    for mode in ("spool", "files"):
        points, interpreter, total, released = measure(mode, arguments.rounds)
        estimate = interval("interpreter_ms", median(interpreter), ".2f")
        others = {"total_ms": f"{median(total).value:.2f}", "released_ms": f"{median(released).value:.2f}"}
        rows.append({"mode": mode, "points": points, **estimate, **others, **machine_facts})
        print(f"{mode:<6} {points:,} points: {estimate['interpreter_ms']} ms of interpreter time (goal {GOAL_MS:.0f})")
    write(arguments.into / "export.csv", FIELDS, rows)


if __name__ == "__main__":
    main()
