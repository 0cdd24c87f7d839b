"""Metric store: plain accumulators between two exports, filled by the backend's worker thread.

Data points are created only when a reader collects. All streams are stored once and cumulatively; delta readers receive
the difference to their previous collection. When a parameter leaves the network, its streams end: each reader collects
them once more, then they are removed.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nissa.hub.critical import CriticalSections
from nissa.otel.metrics.gauges import GaugeLog
from nissa.semconv.metrics import EVENT_METRICS, Kind, MetricSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.events import SpanIds
    from nissa.kernels.moments import BucketRange

Attributes = Mapping[str, Any]
Key = tuple[tuple[str, Any], ...]

MOST_ENDED: Final = 2_000
"""Maximum number of ended streams that wait for collection by all readers; above it the oldest are dropped."""


_logger = logging.getLogger("nissa")


def key_of(attributes: Attributes) -> Key:
    """Return attributes as a key that does not depend on their order."""
    return tuple(sorted(attributes.items()))


@dataclass(frozen=True, slots=True)
class Sample:
    """Value of an exemplar, with the span it refers to."""

    value: float
    time_unix_nano: int
    ids: "SpanIds"


@dataclass(slots=True)
class SumStream:
    """Value of a counter or up-down counter."""

    attributes: Attributes
    start: int
    value: int = 0


@dataclass(slots=True)
class HistogramStream:
    """Histogram with explicit buckets; ``counts`` has one entry more than the metric has bounds."""

    attributes: Attributes
    start: int
    counts: "NDArray[np.int64]"
    total: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    sample: Sample | None = None


@dataclass(slots=True)
class MagnitudeStream:
    """Exponential histogram of absolute values.

    Args:
        range: Bucket range: scale and exponents.
        counts: Underflow, the buckets of ``range``, overflow: (buckets + 2,).
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
        start: Start of the run, nanoseconds since the Unix epoch; start time of the streams that begin with it.
        gauges: Timestamped gauge points per reader.
        refreshers: Called before each collection, to copy counters that other components keep.
        observers: Called with each value of a histogram with explicit buckets, after it was added.
        ended: Ended streams: sequence number, metric, stream, time of the end.
        ended_before: Sequence number of the next stream to end.
        changed: Streams of `EVENT_METRICS` that have changed since the last collection, as keys.
        warned: Whether the warning about thinned step gauges was logged.
        sections: Critical sections of the hub: while a thread holds the lock, its signal handlers defer their work.
        lock: Protects all streams: the worker thread writes them while readers' threads collect.
    """

    start: int
    gauges: GaugeLog
    sums: dict[MetricSpec, dict[Key, SumStream]] = field(default_factory=dict)
    histograms: dict[MetricSpec, dict[Key, HistogramStream]] = field(default_factory=dict)
    magnitudes: dict[MetricSpec, dict[Key, MagnitudeStream]] = field(default_factory=dict)
    refreshers: list[Callable[[], None]] = field(default_factory=list)
    observers: list[Callable[[MetricSpec, Attributes, float], None]] = field(default_factory=list)
    ended: "deque[tuple[int, MetricSpec, SumStream | MagnitudeStream, int]]" = field(
        default_factory=lambda: deque(maxlen=MOST_ENDED)
    )
    ended_before: int = 0
    changed: dict[tuple[MetricSpec, Key], None] = field(default_factory=dict)
    warned: bool = False
    sections: CriticalSections = field(default_factory=CriticalSections)
    lock: threading.RLock = field(init=False)

    def __post_init__(self) -> None:
        """Create the lock that protects the streams: the worker thread writes them while readers' threads collect.

        A reader may also collect on the main thread, where a signal handler can interrupt it. The critical sections
        know the holder of the lock, so that such a handler defers its work instead of waiting for the lock.
        """
        self.lock = self.sections.lock()

    def gauge(self, spec: MetricSpec, attributes: Attributes, time: int, value: float | None) -> None:
        """Add one point to a gauge; do nothing if the value is None."""
        if value is None:
            return
        with self.sections, self.lock:
            thinned = self.gauges.add_point(spec, key_of(attributes), attributes, time, value)
        if thinned and not self.warned:  # without the lock held: a logging handler may call back into the store
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
        """Add a point to each of several streams at once; NaN in an array is not exported.

        ``group`` identifies this set of streams; its points are thinned together.
        """
        with self.sections, self.lock:
            self.gauges.add(spec, group, attributes, time, values)

    def add(self, spec: MetricSpec, attributes: Attributes, amount: int = 1, *, start: int | None = None) -> None:
        """Add to a counter; a new one gets the start time ``start``, by default that of the run."""
        with self.sections, self.lock:
            self._sum(spec, attributes, start).value += amount

    def set_total(self, spec: MetricSpec, attributes: Attributes, total: int) -> None:
        """Set the total of a counter that another component keeps."""
        with self.sections, self.lock:
            self._sum(spec, attributes).value = total

    def observe(self, spec: MetricSpec, attributes: Attributes, value: float, *, sample: Sample | None = None) -> None:
        """Add a value to a histogram with explicit buckets."""
        with self.sections, self.lock:
            streams = self.histograms.setdefault(spec, {})
            key = key_of(attributes)
            if key not in streams:
                streams[key] = HistogramStream(attributes, self.start, np.zeros(len(spec.bounds) + 1, dtype=np.int64))
            self._note_change(spec, key)
            stream = streams[key]
            stream.counts[np.searchsorted(spec.bounds, value, side="left")] += 1
            stream.total += value
            stream.minimum = value if stream.minimum is None else min(stream.minimum, value)
            stream.maximum = value if stream.maximum is None else max(stream.maximum, value)
            stream.sample = sample or stream.sample
        for observer in self.observers:  # without the lock held: an instrument of the application is foreign code
            observer(spec, attributes, value)

    def magnitude(
        self, spec: MetricSpec, attributes: Attributes, make: Callable[[], MagnitudeStream]
    ) -> MagnitudeStream:
        """Return the stream of an exponential histogram; create it with ``make`` if it does not exist."""
        streams = self.magnitudes.setdefault(spec, {})
        key = key_of(attributes)
        if key not in streams:
            streams[key] = make()
        return streams[key]

    def end(self, spec: MetricSpec, attributes: Attributes, at: int) -> None:
        """End a stream at a time; a later one with the same attributes is a new stream."""
        key = key_of(attributes)
        with self.sections, self.lock:
            found = (self.sums.get(spec, {}).pop(key, None), self.magnitudes.get(spec, {}).pop(key, None))
            for stream in found:
                if isinstance(stream, MagnitudeStream):
                    stream.counts = stream.counts.copy()  # the view would keep the shared array of all parameters alive
                if stream is not None:
                    self.ended.append((self.ended_before, spec, stream, at))
                    self.ended_before += 1

    def end_gauges(self, group: Any) -> None:
        """End the gauges of a set of streams."""
        with self.sections, self.lock:
            self.gauges.end(group)

    def forget_ended(self, before: int) -> None:
        """Drop ended streams with sequence numbers below ``before``, which every reader has collected."""
        while self.ended and self.ended[0][0] < before:
            self.ended.popleft()

    def _warn_thinned(self) -> None:
        _logger.warning(
            "More points of steps were recorded between two exports than limits.step_points_per_export (%s) allows. From "
            "now on, gauges such as nissa.step and nissa.loss have every second point or fewer. Export more often "
            "(OTEL_METRIC_EXPORT_INTERVAL), or raise the limit; a point takes 16 bytes.",
            f"{self.gauges.most_alone:,}",
        )

    def _sum(self, spec: MetricSpec, attributes: Attributes, start: int | None = None) -> SumStream:
        assert spec.kind in {Kind.COUNTER, Kind.UP_DOWN_COUNTER}, spec  # noqa: S101 - our own mistake
        streams = self.sums.setdefault(spec, {})
        key = key_of(attributes)
        if key not in streams:
            streams[key] = SumStream(attributes, self.start if start is None else start)
        self._note_change(spec, key)
        return streams[key]

    def _note_change(self, spec: MetricSpec, key: Key) -> None:
        if spec in EVENT_METRICS:
            self.changed[spec, key] = None
