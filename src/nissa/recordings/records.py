"""Spans, metric streams and log records as they were written; times are nanoseconds since the Unix epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nissa.semconv import attributes as attr

_INSTANCE: Final = "service.instance.id"


@dataclass(frozen=True, slots=True)
class Process:
    """What wrote a line.

    Args:
        attributes: Those of its resource.
    """

    attributes: Mapping[str, Any]

    @property
    def identity(self) -> tuple[str, int | None]:
        """What tells it from the other processes of the run, restarts of the same rank included."""
        return str(self.attributes.get(_INSTANCE, "")), self.rank

    @property
    def rank(self) -> int | None:
        """Its rank, None where it trained alone."""
        rank = self.attributes.get(attr.RANK)
        return rank if isinstance(rank, int) else None


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened within a span."""

    name: str
    time: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span that has ended; one that has not shows by its ``.started`` twin only.

    Args:
        error: Why it failed; empty where no reason was given, None where it did not fail.
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
    """A log-based Event, or any other log record, whose name is empty then."""

    name: str
    time: int
    severity: int
    body: str
    attributes: Mapping[str, Any]
    trace_id: str
    process: Process


@dataclass(frozen=True, slots=True)
class Stream:
    """The points of one gauge or sum with one set of attributes, in the order of their times.

    Args:
        times: Shape (N,), nanoseconds.
        values: Shape (N,); NaN and infinities are as they were measured.
    """

    metric: str
    attributes: Mapping[str, Any]
    process: Process
    times: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A point of an exponential histogram: bucket ``i`` holds values in (2^(i/2^scale), 2^((i+1)/2^scale)].

    Args:
        start: Since when it counts.
        offset: Index of the first bucket.
        counts: Shape (B,), one per bucket.
        zeros: How many values were exactly zero.
    """

    start: int
    time: int
    scale: int
    offset: int
    counts: NDArray[np.int64]
    zeros: int


@dataclass(frozen=True, slots=True)
class DistributionStream:
    """The points of one exponential histogram with one set of attributes, in the order of their times.

    Args:
        cumulative: Each point counts since the stream began, not since the point before.
    """

    metric: str
    attributes: Mapping[str, Any]
    process: Process
    cumulative: bool
    points: tuple[Distribution, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """All that a folder holds.

    Args:
        files: The files' names.
        damaged: Lines that could not be read, as ``file:line``; a killed process leaves its last one so.
        point_count: Data points of all metrics, those of kinds that are not kept here included.
    """

    files: tuple[str, ...]
    spans: tuple[Span, ...]
    streams: tuple[Stream, ...]
    distributions: tuple[DistributionStream, ...]
    logs: tuple[LogRecord, ...]
    damaged: tuple[str, ...] = ()
    point_count: int = 0
    processes: tuple[Process, ...] = field(default=())

    def of(self, metric: str) -> list[Stream]:
        """Return the streams of a metric."""
        return [stream for stream in self.streams if stream.metric == metric]

    def distributions_of(self, metric: str) -> list[DistributionStream]:
        """Return the distributions of a metric."""
        return [stream for stream in self.distributions if stream.metric == metric]
