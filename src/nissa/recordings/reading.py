"""Parser for the OTLP JSON lines and spools of a folder, merged over all processes of a run."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nissa.errors import ConfigurationError
from nissa.journal import states_of_owners
from nissa.printable import printable, printable_name
from nissa.recordings.folders import HERE, recorded_files
from nissa.recordings.records import (
    Distribution,
    DistributionStream,
    LogRecord,
    Process,
    Recording,
    Span,
    SpanEvent,
    Stream,
    SumStream,
)
from nissa.recordings.sources import recorded_lines
from nissa.recordings.values import attributes, count, name, nanoseconds, number, real, text, whole

if TYPE_CHECKING:
    from nissa.recordings.jsonl_reader import DamagedLine

_DELTA: Final = 1
_FAILED: Final = 2
_LEAST_SCALE: Final = -10
_MOST_SCALE: Final = 20
_MOST_OFFSET: Final = 2**31 - 1
_MOST_COUNT: Final = 2**63 - 1
_MOST_EXPONENT: Final = 2_100.0  # doubles reach from 2**-1074 to 2**1024, and the coarsest bucket spans 1,024 exponents
MOST_NAMED: Final = 5
"""Maximum number of unreadable parts in an error message."""

_Key = tuple[str, tuple[str, int | None], str]


def read(folder: Path) -> Recording:
    """Parse all recorded files of a folder.

    Lines that are not valid JSON are skipped and listed in ``damaged``: a killed process leaves its last line
    incomplete. Lines that are not OTLP, such as those of the hub's file backend, are ignored. Of duplicate spans the
    last one is kept.

    Raises:
        ConfigurationError: The folder does not exist or contains no telemetry.
    """
    files = recorded_files(folder)
    reader = _Reader()
    for path in files:
        reader.read(path)
    if not reader.lines:
        damaged = f" These parts cannot be read: {', '.join(reader.damaged[:MOST_NAMED])}." if reader.damaged else ""
        raise ConfigurationError(f"The files in {printable(str(folder))} contain no OTLP telemetry.{damaged} {HERE}")
    recording = reader.recording(tuple(printable_name(path.name) for path in files))
    return replace(recording, owners=states_of_owners(folder))


class _Reader:
    """Accumulates parsed lines, and builds the recording."""

    def __init__(self) -> None:
        self.lines = 0
        self._damaged: list[DamagedLine] = []
        self._processes: dict[tuple[str, int | None], Process] = {}
        self._spans: dict[tuple[str, str], Span] = {}
        self._logs: list[LogRecord] = []
        # Points of a metric are spread over many lines, one per export: collect them per stream, and sort at the end.
        self._heads: dict[_Key, tuple[dict[str, Any], Process]] = {}
        self._numbers: dict[_Key, list[tuple[int, float]]] = {}
        self._distributions: dict[_Key, list[Distribution]] = {}
        self._sums: dict[_Key, list[tuple[int, int, float]]] = {}
        self._cumulative: dict[_Key, bool] = {}
        self._points = 0

    def read(self, path: Path) -> None:
        """Parse the lines of a file."""
        for line in recorded_lines(path, self._damaged):
            try:
                self._line(line.value)
            # A malformed line must not make the rest of the run unreadable. RecursionError: attributes nested too deeply.
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self._damaged.append(line.damaged())

    @property
    def damaged(self) -> tuple[str, ...]:
        """Lines and files that could not be parsed."""
        return tuple(map(str, self._damaged))

    def recording(self, files: tuple[str, ...]) -> Recording:
        """Return everything that was parsed, in chronological order."""
        return Recording(
            files=files,
            spans=tuple(sorted(self._spans.values(), key=lambda span: (span.start, span.end))),
            streams=tuple(self._stream(key) for key in self._numbers),
            distributions=tuple(self._distribution_stream(key) for key in self._distributions),
            sums=tuple(self._sum_stream(key) for key in self._sums),
            logs=tuple(sorted(self._logs, key=lambda record: record.time)),
            damaged=self.damaged,
            point_count=self._points,
            processes=tuple(self._processes.values()),
        )

    def _line(self, line: Mapping[str, Any]) -> None:
        for process, spans in self._parts(line, "resourceSpans", "scopeSpans", "spans"):
            for each in spans:
                span = _span(each, process)
                self._spans[span.trace_id, span.span_id] = span
        for process, records in self._parts(line, "resourceLogs", "scopeLogs", "logRecords"):
            self._logs += [_record(each, process) for each in records]
        for process, metrics in self._parts(line, "resourceMetrics", "scopeMetrics", "metrics"):
            for each in metrics:
                self._metric(each, process)

    def _parts(
        self, line: Mapping[str, Any], resources: str, scopes: str, items: str
    ) -> Iterator[tuple[Process, list[Any]]]:
        for resource in line.get(resources, ()):
            found = Process(attributes(resource.get("resource", {})))
            process = self._processes.setdefault(found.identity, found)
            for scope in resource.get(scopes, ()):
                self.lines += 1
                yield process, scope.get(items, [])

    def _metric(self, metric: Mapping[str, Any], process: Process) -> None:
        for kind in ("gauge", "sum"):
            for point in metric.get(kind, {}).get("dataPoints", ()):
                value = number(point)
                if value is not None:
                    at = nanoseconds(point, "timeUnixNano")  # before the stream exists, which must not stay empty
                    self._numbers.setdefault(self._key(metric["name"], point, process), []).append((at, value))
        exponential = metric.get("exponentialHistogram", {})
        for point in exponential.get("dataPoints", ()):
            distribution = _distribution(point)
            key = self._key(metric["name"], point, process)
            self._cumulative[key] = exponential.get("aggregationTemporality") != _DELTA
            self._distributions.setdefault(key, []).append(distribution)
        histogram = metric.get("histogram", {})
        for point in histogram.get("dataPoints", ()):
            at, values = nanoseconds(point, "timeUnixNano"), (count(point, "count"), real(point.get("sum", 0.0)))
            key = self._key(metric["name"], point, process)
            self._cumulative[key] = histogram.get("aggregationTemporality") != _DELTA
            self._sums.setdefault(key, []).append((at, *values))

    def _key(self, metric: Any, point: Mapping[str, Any], process: Process) -> _Key:
        self._points += 1
        key = name(metric), process.identity, json.dumps(point.get("attributes", ()), sort_keys=True)
        if key not in self._heads:
            self._heads[key] = attributes(point), process
        return key

    def _stream(self, key: _Key) -> Stream:
        points = sorted(self._numbers[key], key=lambda point: point[0])
        return Stream(
            key[0],
            *self._heads[key],
            times=np.array([time for time, _ in points], dtype=np.int64),
            values=np.array([value for _, value in points], dtype=np.float64),
        )

    def _sum_stream(self, key: _Key) -> SumStream:
        points = sorted(self._sums[key])
        counts = np.array([number for _, number, _ in points], dtype=np.int64)
        sums = np.array([total for _, _, total in points], dtype=np.float64)
        if self._cumulative[key]:
            counts, sums = np.diff(counts, prepend=0), np.diff(sums, prepend=0.0)
        return SumStream(
            key[0],
            *self._heads[key],
            times=np.array([time for time, _, _ in points], dtype=np.int64),
            counts=counts,
            sums=sums,
        )

    def _distribution_stream(self, key: _Key) -> DistributionStream:
        points = tuple(sorted(self._distributions[key], key=lambda point: point.time))
        return DistributionStream(key[0], *self._heads[key], cumulative=self._cumulative[key], points=points)


def _span(span: Mapping[str, Any], process: Process) -> Span:
    status = span.get("status", {})
    return Span(
        name=name(span["name"]),
        trace_id=name(span["traceId"]),
        span_id=name(span["spanId"]),
        parent_id=name(span.get("parentSpanId") or "") or None,
        start=nanoseconds(span, "startTimeUnixNano"),
        end=nanoseconds(span, "endTimeUnixNano"),
        attributes=attributes(span),
        events=tuple(
            SpanEvent(name(each["name"]), nanoseconds(each, "timeUnixNano"), attributes(each))
            for each in span.get("events", ())
        ),
        error=text(status.get("message", "")) if status.get("code") == _FAILED else None,
        process=process,
    )


def _record(record: Mapping[str, Any], process: Process) -> LogRecord:
    return LogRecord(
        name=name(record.get("eventName", "")),
        time=nanoseconds(record, "timeUnixNano") or nanoseconds(record, "observedTimeUnixNano"),
        severity=whole(record.get("severityNumber", 0)),
        body=text(record.get("body", {}).get("stringValue", "")),
        attributes=attributes(record),
        trace_id=name(record.get("traceId", "")),
        process=process,
    )


def _distribution(point: Mapping[str, Any]) -> Distribution:
    positive = point.get("positive", {})
    scale = whole(point.get("scale", 0), _LEAST_SCALE, _MOST_SCALE)
    offset = whole(positive.get("offset", 0), -_MOST_OFFSET, _MOST_OFFSET)
    counts = [whole(each) for each in positive.get("bucketCounts", ())]
    # Buckets beyond the range of a double cannot contain anything, and would make the chart's grid arbitrarily large.
    low, high = offset / 2.0**scale, (offset + len(counts)) / 2.0**scale
    if sum(counts) > _MOST_COUNT or (counts and (low < -_MOST_EXPONENT or high > _MOST_EXPONENT)):
        raise ValueError("the histogram is out of range")
    return Distribution(
        start=nanoseconds(point, "startTimeUnixNano"),
        time=nanoseconds(point, "timeUnixNano"),
        scale=scale,
        offset=offset,
        counts=np.array(counts, dtype=np.int64),
        zeros=count(point, "zeroCount"),
    )
