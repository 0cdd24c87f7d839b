"""Spans, metric points and log records as they were exported; times are nanoseconds since the Unix epoch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from nissa.recordings.values import attributes

_FAILED: Final = 2
_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram")


class SpanEvent(NamedTuple):
    """Event on a span."""

    name: str
    time: int
    attributes: dict[str, Any]


class Link(NamedTuple):
    """Link of a span to another one."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """Exported span.

    Args:
        parent_id: Id of the parent span; None for the root of a trace.
        error: Whether its status is an error.
        message: Message of the status, empty without one.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[SpanEvent]
    links: list[Link]
    error: bool
    message: str

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return (self.end - self.start) / 1e9


@dataclass(frozen=True, slots=True)
class Point:
    """Exported data point of a metric.

    Args:
        kind: ``gauge``, ``sum``, ``histogram`` or ``exponentialHistogram``, as in OTLP.
        start: Begin of the counted interval; None for a gauge.
        value: Value of a gauge or sum; NaN for a histogram.
        count: Number of values of a histogram; 0 for other kinds.
        sum: Sum of the values of a histogram; NaN for other kinds, and where it was not recorded.
        raw: The point in OTLP JSON.
    """

    metric: str
    unit: str
    kind: str
    attributes: dict[str, Any]
    time: int
    start: int | None
    value: Any
    count: int
    sum: float
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """Exported log record.

    Args:
        name: Name of the OpenTelemetry Event, such as ``"nissa.narrative"``; empty for another record.
        body: Text of the record.
        raw: The record in OTLP JSON.
    """

    name: str
    time: int
    severity: int
    body: str
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    raw: dict[str, Any]


def spans_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[Span]:
    """Yield the spans in OTLP JSON lines."""
    return (_span(each) for scope in _scopes(lines, "resourceSpans", "scopeSpans") for each in scope["spans"])


def points_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    """Yield the data points in OTLP JSON lines."""
    for scope in _scopes(lines, "resourceMetrics", "scopeMetrics"):
        for metric in scope["metrics"]:
            for kind in _KINDS:
                for point in metric.get(kind, {}).get("dataPoints", ()):
                    yield _point(metric, kind, point)


def records_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[LogRecord]:
    """Yield the log records in OTLP JSON lines."""
    return (_record(each) for scope in _scopes(lines, "resourceLogs", "scopeLogs") for each in scope["logRecords"])


def _scopes(lines: Iterable[Mapping[str, Any]], resources: str, scopes: str) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        for resource in line.get(resources, ()):
            yield from resource[scopes]


def _span(span: Mapping[str, Any]) -> Span:
    status = span.get("status", {})
    return Span(
        name=span["name"],
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId") or None,
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        attributes=attributes(span),
        events=[
            SpanEvent(each["name"], int(each["timeUnixNano"]), attributes(each)) for each in span.get("events", ())
        ],
        links=[Link(each["traceId"], each["spanId"]) for each in span.get("links", ())],
        error=status.get("code") == _FAILED,
        message=status.get("message", ""),
    )


def _point(metric: Mapping[str, Any], kind: str, point: dict[str, Any]) -> Point:
    start = point.get("startTimeUnixNano")
    return Point(
        metric=metric["name"],
        unit=metric.get("unit", ""),
        kind=kind,
        attributes=attributes(point),
        time=int(point["timeUnixNano"]),
        start=None if start is None else int(start),
        value=int(point["asInt"]) if "asInt" in point else float(point.get("asDouble", "nan")),
        count=int(point.get("count", 0)),
        sum=float(point.get("sum", "nan")),
        raw=point,
    )


def _record(record: dict[str, Any]) -> LogRecord:
    return LogRecord(
        name=record.get("eventName", ""),
        time=int(record.get("timeUnixNano") or record.get("observedTimeUnixNano") or 0),
        severity=int(record.get("severityNumber", 0)),
        body=str(record.get("body", {}).get("stringValue", "")),
        attributes=attributes(record),
        trace_id=record.get("traceId", ""),
        span_id=record.get("spanId", ""),
        raw=record,
    )
