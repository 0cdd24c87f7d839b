"""What metrics hold between two exports: plain accumulators, filled by the backend's thread.

Points are built only when a reader collects. Everything is kept once and cumulatively; a reader that wants deltas gets
the difference to what it was given last. A stream whose parameter leaves the network ends: each reader is given it
once more, and then it is gone.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nissa.backends.otel.gauges import GaugeLog
from nissa.hub.critical import CriticalSections
from nissa.semconv.metrics import Kind, MetricSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.events import SpanIds
    from nissa.kernels.moments import BucketRange

Attributes = Mapping[str, Any]
Key = tuple[tuple[str, Any], ...]

MOST_ENDED: Final = 2_000
"""How many streams that have ended wait for readers; beyond it the oldest give way."""


_logger = logging.getLogger("nissa")


def key_of(attributes: Attributes) -> Key:
    """Return attributes as a key that does not depend on their order."""
    return tuple(sorted(attributes.items()))


@dataclass(frozen=True, slots=True)
class Sample:
    """A value to show as exemplar, with the span it belongs to."""

    value: float
    time_unix_nano: int
    ids: "SpanIds"


@dataclass(slots=True)
class SumStream:
    """A count."""

    attributes: Attributes
    start: int
    value: int = 0


@dataclass(slots=True)
class HistogramStream:
    """Values in explicit buckets; ``counts`` has one entry more than there are bounds."""

    attributes: Attributes
    start: int
    counts: "NDArray[np.int64]"
    total: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    sample: Sample | None = None


@dataclass(slots=True)
class MagnitudeStream:
    """Absolute values in log2-subdivided buckets.

    Args:
        counts: Underflow, the buckets of ``range``, overflow.
    """

    attributes: Attributes
    start: int
    range: "BucketRange"
    counts: "NDArray[np.int64]"
    zeros: int = 0
    total: float = 0.0
    maximum: float | None = None
    sample: Sample | None = None


@dataclass(slots=True)
class MetricStore:
    """All streams of one run.

    Args:
        start: When the run began, nanoseconds; the start time of streams that begin with it.
        gauges: Timestamped gauge points per reader.
        refreshers: Called before each collection, to bring counts up to date that are kept elsewhere.
        ended: Streams that have ended, with a running number, their metric, and when.
        ended_before: The running number that the next stream to end will have.
        warned: Whether the log has that gauges of steps were thinned.
        sections: The hub's critical sections.
    """

    start: int
    gauges: GaugeLog
    sums: dict[MetricSpec, dict[Key, SumStream]] = field(default_factory=dict)
    histograms: dict[MetricSpec, dict[Key, HistogramStream]] = field(default_factory=dict)
    magnitudes: dict[MetricSpec, dict[Key, MagnitudeStream]] = field(default_factory=dict)
    refreshers: list[Callable[[], None]] = field(default_factory=list)
    ended: "deque[tuple[int, MetricSpec, SumStream | MagnitudeStream, int]]" = field(
        default_factory=lambda: deque(maxlen=MOST_ENDED)
    )
    ended_before: int = 0
    warned: bool = False
    sections: CriticalSections = field(default_factory=CriticalSections)
    lock: threading.RLock = field(init=False)

    def __post_init__(self) -> None:
        """Make the lock that keeps the backend's thread and the readers' threads apart.

        A reader may collect on the main thread too, which a signal handler interrupts.
        """
        self.lock = self.sections.lock()

    def gauge(self, spec: MetricSpec, attributes: Attributes, time: int, value: float | None) -> None:
        """Add one point to a gauge; an absent value adds none."""
        if value is None:
            return
        with self.sections, self.lock:
            thinned = self.gauges.add_point(spec, key_of(attributes), attributes, time, value)
        if thinned and not self.warned:  # outside of the lock: a logging handler may call back
            self.warned = True
            self._warn_thinned()

    def gauge_row(
        self,
        spec: MetricSpec,
        attributes: Sequence[Attributes],
        time: int,
        values: "tuple[float, ...] | NDArray[np.float64]",
        *,
        group: Any,
    ) -> None:
        """Add a point to each of several streams at once; NaN in an array is absent.

        ``group`` identifies this set of streams, within which points are thinned evenly.
        """
        with self.sections, self.lock:
            self.gauges.add(spec, group, attributes, time, values)

    def add(self, spec: MetricSpec, attributes: Attributes, amount: int = 1, *, start: int | None = None) -> None:
        """Add to a count; one that does not exist yet began at ``start``, or with the run."""
        with self.sections, self.lock:
            self._sum(spec, attributes, start).value += amount

    def set_total(self, spec: MetricSpec, attributes: Attributes, total: int) -> None:
        """Set a count that is kept elsewhere."""
        with self.sections, self.lock:
            self._sum(spec, attributes).value = total

    def observe(self, spec: MetricSpec, attributes: Attributes, value: float, *, sample: Sample | None = None) -> None:
        """Add a value to an explicit histogram."""
        with self.sections, self.lock:
            streams = self.histograms.setdefault(spec, {})
            key = key_of(attributes)
            if key not in streams:
                streams[key] = HistogramStream(attributes, self.start, np.zeros(len(spec.bounds) + 1, dtype=np.int64))
            stream = streams[key]
            stream.counts[np.searchsorted(spec.bounds, value, side="left")] += 1
            stream.total += value
            stream.minimum = value if stream.minimum is None else min(stream.minimum, value)
            stream.maximum = value if stream.maximum is None else max(stream.maximum, value)
            stream.sample = sample or stream.sample

    def magnitude(
        self, spec: MetricSpec, attributes: Attributes, make: Callable[[], MagnitudeStream]
    ) -> MagnitudeStream:
        """Return an exponential histogram's stream, made where there is none."""
        streams = self.magnitudes.setdefault(spec, {})
        key = key_of(attributes)
        if key not in streams:
            streams[key] = make()
        return streams[key]

    def end(self, spec: MetricSpec, attributes: Attributes, at: int) -> None:
        """End a stream at a time; one of the same attributes that comes later is another one."""
        key = key_of(attributes)
        with self.sections, self.lock:
            found = (self.sums.get(spec, {}).pop(key, None), self.magnitudes.get(spec, {}).pop(key, None))
            for stream in found:
                if isinstance(stream, MagnitudeStream):
                    stream.counts = stream.counts.copy()  # else it would keep those of all others alive
                if stream is not None:
                    self.ended.append((self.ended_before, spec, stream, at))
                    self.ended_before += 1

    def end_gauges(self, group: Any) -> None:
        """End the gauges of a set of streams."""
        with self.sections, self.lock:
            self.gauges.end(group)

    def forget_ended(self, before: int) -> None:
        """Drop the streams that have ended, up to a running number: every reader was given them."""
        while self.ended and self.ended[0][0] < before:
            self.ended.popleft()

    def _warn_thinned(self) -> None:
        _logger.warning(
            "limits.step_points_per_export (%s): more points of steps were recorded between two exports than are kept, so "
            "that gauges such as nissa.step and nissa.loss have every second point or fewer from here on. Export more "
            "often (OTEL_METRIC_EXPORT_INTERVAL), or raise the limit; a point takes 16 bytes.",
            f"{self.gauges.most_alone:,}",
        )

    def _sum(self, spec: MetricSpec, attributes: Attributes, start: int | None = None) -> SumStream:
        assert spec.kind in {Kind.COUNTER, Kind.UP_DOWN_COUNTER}, spec  # noqa: S101 - our own mistake
        streams = self.sums.setdefault(spec, {})
        key = key_of(attributes)
        if key not in streams:
            streams[key] = SumStream(attributes, self.start if start is None else start)
        return streams[key]
