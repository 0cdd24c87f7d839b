"""Conversion of the metric store to SDK metrics, per metric reader.

Readers may differ in temporality. For each reader that exports deltas, the last exported totals are kept here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry.sdk.metrics.export import (
    ExponentialHistogram,
    Gauge,
    Histogram,
    Metric,
    NumberDataPoint,
    Sum,
)

from nissa.otel.metrics.points import GaugePoints, HistogramPart, exponential_point, histogram_point
from nissa.otel.metrics.store import HistogramStream, Key, MagnitudeStream, SumStream, key_of
from nissa.otel.metrics.temporality import Form
from nissa.semconv.metrics import Kind, MetricSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nissa.otel.metrics.gauges import Row
    from nissa.otel.metrics.store import MetricStore

_Streams = list[tuple[SumStream | MagnitudeStream, int]]
"""Streams with the timestamp of their next point, nanoseconds since the Unix epoch."""


@dataclass(slots=True)
class _Given:
    """Totals of one stream at the last collection of a delta reader; the next delta is computed against them."""

    start: int
    time: int
    count: int = 0
    counts: "NDArray[np.int64] | None" = None
    zeros: int = 0
    total: float = 0.0


@dataclass(slots=True)
class _Reading:
    """State of one metric reader.

    Args:
        ended: Sequence number of the next ended stream to return to this reader.
        last: Time of its last collection, nanoseconds since the Unix epoch.
        given: Totals at the last collection, per stream; only for kinds with delta temporality.
    """

    form: Form
    ended: int
    last: int = 0
    given: dict[tuple[MetricSpec, Key], _Given] = field(default_factory=dict)


class PointBuilder:
    """Builds SDK metrics from the store.

    Args:
        store: Metric store of the run.
        most_buckets: Maximum number of buckets of an exponential histogram point; wider ones are downscaled.
    """

    def __init__(self, store: "MetricStore", most_buckets: int) -> None:
        self._store = store
        self._most_buckets = most_buckets
        # Weak keys, so that a reader that was shut down and discarded does not hold back `forget_ended`.
        self._readings: WeakKeyDictionary[object, _Reading] = WeakKeyDictionary()

    def attach(self, reader: object) -> None:
        """Register a reader; gauge points are buffered for it from now on."""
        if reader not in self._readings:
            self._readings[reader] = _Reading(getattr(reader, "form", Form()), self._store.ended_before)
            self._store.gauges.attach(reader)

    def metrics(self, reader: object, now: int) -> list[Metric]:
        """Return the metrics of one collection of a reader: all data that it has not collected yet."""
        for refresh in self._store.refreshers:
            refresh()
        with self._store.sections, self._store.lock:
            self.attach(reader)
            reading = self._readings[reader]
            ended = self._ended(reading, now)
            built = [
                *self._gauges(reader),
                *self._sums(reading, now, ended),
                *self._histograms(reading, now),
                *self._magnitudes(reading, now, ended),
            ]
            reading.last = now
            self._store.changed.clear()
            self._store.forget_ended(min(each.ended for each in self._readings.values()))
        return built

    def changed(self, reader: object, now: int) -> list[Metric]:
        """Return the streams of `EVENT_METRICS` that have changed since the last call; gauges are left to `metrics`."""
        store = self._store
        with store.sections, store.lock:
            self.attach(reader)
            reading = self._readings[reader]
            changed, store.changed = store.changed, {}
            built: list[Metric] = []
            for spec in dict.fromkeys(spec for spec, _ in changed):
                keys = [key for other, key in changed if other is spec]
                if spec.kind is Kind.HISTOGRAM:
                    built.append(_histogram(reading, spec, [store.histograms[spec][key] for key in keys], now))
                else:
                    built.append(_sum(reading, spec, [(store.sums[spec][key], now) for key in keys]))
        return built

    def _gauges(self, reader: object) -> Iterable[Metric]:
        rows = self._store.gauges.take(reader)
        by_spec: dict[MetricSpec, list[Row]] = {}
        for (spec, _), group in rows.items():
            by_spec.setdefault(spec, []).extend(group)
        found = {spec: GaugePoints(each) for spec, each in by_spec.items()}
        return [_metric(spec, Gauge(data_points=points)) for spec, points in found.items() if points]

    def _ended(self, reading: _Reading, now: int) -> dict[MetricSpec, _Streams]:
        """Return the streams that ended since the reader's last collection, with the timestamp of their last point."""
        found: dict[MetricSpec, _Streams] = {}
        for number, spec, stream, at in self._store.ended:
            if number >= reading.ended:
                # Timestamps of a series must increase: later than the reader's last collection, and not later than now,
                # because a new stream with the same attributes may follow.
                found.setdefault(spec, []).append((stream, max(min(at, now), reading.last + 1)))
        reading.ended = self._store.ended_before
        return found

    def _sums(self, reading: _Reading, now: int, ended: dict[MetricSpec, _Streams]) -> Iterable[Metric]:
        for spec, live in self._store.sums.items():
            streams: _Streams = [*ended.get(spec, ()), *((stream, now) for stream in live.values())]
            metric = _sum(reading, spec, streams)
            _forget(reading, spec, ended, live)
            if streams:
                yield metric

    def _histograms(self, reading: _Reading, now: int) -> Iterable[Metric]:
        for spec, streams in self._store.histograms.items():
            yield _histogram(reading, spec, streams.values(), now)

    def _magnitudes(self, reading: _Reading, now: int, ended: dict[MetricSpec, _Streams]) -> Iterable[Metric]:
        for spec, live in self._store.magnitudes.items():
            streams: list[Any] = [*ended.get(spec, ()), *((stream, now) for stream in live.values())]
            given = [(stream, _part(reading, spec, stream, at), at) for stream, at in streams]
            _forget(reading, spec, ended, live)
            if given:
                wide = [exponential_point(stream, part, at, self._most_buckets) for stream, part, at in given]
                yield _metric(spec, ExponentialHistogram(wide, reading.form.temporality(spec.kind)))


def _metric(spec: MetricSpec, data: Any) -> Metric:
    return Metric(spec.name, spec.description, spec.unit, data)


def _sum(reading: _Reading, spec: MetricSpec, streams: _Streams) -> Metric:
    points = [_sum_point(reading, spec, stream, at) for stream, at in streams]
    return _metric(spec, Sum(points, reading.form.temporality(spec.kind), is_monotonic=spec.kind is Kind.COUNTER))


def _sum_point(reading: _Reading, spec: MetricSpec, stream: Any, at: int) -> NumberDataPoint:
    if spec.kind not in reading.form.deltas:
        return NumberDataPoint(stream.attributes, stream.start, at, stream.value)
    before = _exchange(reading, spec, stream, _Given(stream.start, at, count=stream.value))
    return NumberDataPoint(stream.attributes, before.time, at, stream.value - before.count)


def _histogram(reading: _Reading, spec: MetricSpec, streams: Iterable[HistogramStream], now: int) -> Metric:
    points = [histogram_point(spec, stream, _part(reading, spec, stream, now), now) for stream in streams]
    return _metric(spec, Histogram(points, reading.form.temporality(spec.kind)))


def _part(reading: _Reading, spec: MetricSpec, stream: HistogramStream | MagnitudeStream, at: int) -> HistogramPart:
    """Return the increase of a stream since the reader's last collection, or its totals for a cumulative reader."""
    zeros = stream.zeros if isinstance(stream, MagnitudeStream) else 0
    if spec.kind not in reading.form.deltas:
        return HistogramPart(stream.start, stream.counts, zeros, stream.total, whole=True)
    given = _Given(stream.start, at, counts=stream.counts.copy(), zeros=zeros, total=stream.total)
    before = _exchange(reading, spec, stream, given)
    gained = stream.counts if before.counts is None else stream.counts - before.counts
    return HistogramPart(before.time, gained, zeros - before.zeros, stream.total - before.total, whole=False)


def _exchange(
    reading: _Reading, spec: MetricSpec, stream: SumStream | HistogramStream | MagnitudeStream, given: _Given
) -> _Given:
    """Store the totals that the reader collects now; return those of its previous collection, zero at the first one."""
    key = (spec, key_of(stream.attributes))
    before = reading.given.get(key)
    reading.given[key] = given
    # A different start time: a new stream with the same attributes has replaced the one collected before.
    return before if before is not None and before.start == stream.start else _Given(stream.start, stream.start)


def _forget(reading: _Reading, spec: MetricSpec, ended: dict[MetricSpec, _Streams], live: "dict[Key, Any]") -> None:
    for stream, _ in ended.get(spec, ()):
        key = key_of(stream.attributes)
        if key not in live:
            reading.given.pop((spec, key), None)
