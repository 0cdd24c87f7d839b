"""Recorded spans, metric streams and log records; times are nanoseconds since the Unix epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nissa.journal import OwnerState
from nissa.semconv import attributes as attr

_INSTANCE: Final = "service.instance.id"


@dataclass(frozen=True, slots=True)
class Process:
    """Process that wrote a record.

    Args:
        attributes: Attributes of its OpenTelemetry resource.
    """

    attributes: Mapping[str, Any]

    @property
    def identity(self) -> tuple[str, int | None]:
        """Instance id and rank: a unique key within the run, also across restarts of a rank."""
        return str(self.attributes.get(_INSTANCE, "")), self.rank

    @property
    def rank(self) -> int | None:
        """Rank of the process; None without distributed training."""
        rank = self.attributes.get(attr.RANK)
        return rank if isinstance(rank, int) and not isinstance(rank, bool) else None


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Event on a span."""

    name: str
    time: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """Finished span; an unfinished span is only represented by its ``.started`` span.

    Args:
        error: Status message of a failed span, possibly empty; None if it did not fail.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start: int
    end: int
    attributes: Mapping[str, Any]
    events: tuple[SpanEvent, ...]
    error: str | None
    process: Process


@dataclass(frozen=True, slots=True)
class LogRecord:
    """Log record; ``name`` is its event name, empty if it is not an OpenTelemetry Event."""

    name: str
    time: int
    severity: int
    body: str
    attributes: Mapping[str, Any]
    trace_id: str
    process: Process


@dataclass(frozen=True, slots=True)
class Stream:
    """Points of one gauge or sum with one set of attributes, in chronological order.

    Args:
        times: Shape (N,), nanoseconds since the Unix epoch.
        values: Shape (N,); may contain NaN and infinities.
    """

    metric: str
    attributes: Mapping[str, Any]
    process: Process
    times: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Data point of an exponential histogram: bucket ``i`` counts values in (2^(i/2^scale), 2^((i+1)/2^scale)].

    Args:
        start: Begin of the counted interval.
        offset: Index of the first bucket.
        counts: Shape (B,), number of values per bucket.
        zeros: Number of values that were exactly zero.
    """

    start: int
    time: int
    scale: int
    offset: int
    counts: NDArray[np.int64]
    zeros: int


@dataclass(frozen=True, slots=True)
class DistributionStream:
    """Points of one exponential histogram with one set of attributes, in chronological order.

    Args:
        cumulative: Counts are since the start of the stream (cumulative temporality), not since the previous point.
    """

    metric: str
    attributes: Mapping[str, Any]
    process: Process
    cumulative: bool
    points: tuple[Distribution, ...]


@dataclass(frozen=True, slots=True)
class SumStream:
    """Counts and sums of one histogram with explicit buckets and one set of attributes, in chronological order.

    Args:
        times: Shape (N,), nanoseconds since the Unix epoch.
        counts: Shape (N,), number of values since the previous point.
        sums: Shape (N,), their sum.
    """

    metric: str
    attributes: Mapping[str, Any]
    process: Process
    times: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recording:
    """All telemetry of a folder.

    Args:
        files: Names of the files.
        damaged: Lines that could not be parsed, as ``file:line``; a killed process leaves its last line incomplete.
        sums: Counts and sums of histograms with explicit buckets, whose buckets are not kept.
        point_count: Number of data points of all metrics.
        owners: State of each process that has begun to write to the folder, and has not ended its run.
    """

    files: tuple[str, ...]
    spans: tuple[Span, ...]
    streams: tuple[Stream, ...]
    distributions: tuple[DistributionStream, ...]
    logs: tuple[LogRecord, ...]
    damaged: tuple[str, ...] = ()
    point_count: int = 0
    processes: tuple[Process, ...] = field(default=())
    sums: tuple[SumStream, ...] = ()
    owners: tuple[OwnerState, ...] = ()

    def of(self, metric: str) -> list[Stream]:
        """Return the gauge or sum streams of a metric."""
        return [stream for stream in self.streams if stream.metric == metric]

    def sums_of(self, metric: str) -> list[SumStream]:
        """Return the counts and sums of a histogram with explicit buckets."""
        return [stream for stream in self.sums if stream.metric == metric]

    def distributions_of(self, metric: str) -> list[DistributionStream]:
        """Return the exponential histogram streams of a metric."""
        return [stream for stream in self.distributions if stream.metric == metric]
