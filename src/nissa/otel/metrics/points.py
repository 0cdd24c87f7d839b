"""Construction of OpenTelemetry data points from the streams of the metric store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, overload

import numpy as np
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    Buckets,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.kernels.moments import BucketRange
    from nissa.otel.metrics.gauges import Row
    from nissa.otel.metrics.store import HistogramStream, MagnitudeStream, Sample
    from nissa.semconv.metrics import MetricSpec


@dataclass(frozen=True, slots=True)
class HistogramPart:
    """Values of one histogram point: totals of a stream, or their increase since a reader's last collection.

    Args:
        start: Start time of the point, nanoseconds since the Unix epoch.
        counts: Elements per bucket.
        zeros: Number of exact zeros.
        total: Sum of the values.
        whole: True for totals, False for an increase (delta temporality).
    """

    start: int
    counts: "NDArray[np.int64]"
    zeros: int
    total: float
    whole: bool


class GaugePoints(Sequence[NumberDataPoint]):
    """Lazy sequence of the data points of rows; each point is created on access.

    The encoder consumes points one by one. Keeping all points of an export alive would trigger full garbage
    collections, and the training thread would wait for these.
    """

    def __init__(self, rows: "Sequence[Row]") -> None:
        self.rows = rows
        self._size: int | None = None  # counting the points of many rows takes as long as encoding them

    def __len__(self) -> int:
        if self._size is None:
            self._size = sum(row.size() for row in self.rows)
        return self._size

    def __bool__(self) -> bool:
        return any(row.size() for row in self.rows)

    def __iter__(self) -> Iterator[NumberDataPoint]:
        for row in self.rows:
            for attributes, time, value in row.points():
                yield NumberDataPoint(attributes, None, time, value)  # type: ignore[arg-type]  # gauges have no start

    @overload
    def __getitem__(self, index: int) -> NumberDataPoint: ...

    @overload
    def __getitem__(self, index: slice) -> list[NumberDataPoint]: ...

    def __getitem__(self, index: int | slice) -> NumberDataPoint | list[NumberDataPoint]:
        if isinstance(index, slice):
            return list(self)[index]
        place = range(len(self))[index]
        return next(islice(self, place, None))


def histogram_point(spec: "MetricSpec", stream: "HistogramStream", part: HistogramPart, now: int) -> HistogramDataPoint:
    """Return the data point of a histogram with explicit buckets."""
    return HistogramDataPoint(
        attributes=stream.attributes,
        start_time_unix_nano=part.start,
        time_unix_nano=now,
        count=int(part.counts.sum()),
        sum=part.total,
        bucket_counts=part.counts.tolist(),
        explicit_bounds=list(spec.bounds),
        # Minimum and maximum are tracked over the whole run only, so those of a delta interval are unknown.
        min=stream.minimum if part.whole else None,  # type: ignore[arg-type]  # the wire format has it optional
        max=stream.maximum if part.whole else None,  # type: ignore[arg-type]
        exemplars=_exemplars(stream.sample, part),
    )


def exponential_point(
    stream: "MagnitudeStream", part: HistogramPart, now: int, most_buckets: int
) -> ExponentialHistogramDataPoint:
    """Return the data point of a magnitude stream in at most ``most_buckets`` exponential buckets."""
    scale, buckets = _exponential_buckets(part.counts, stream.range, most_buckets)
    return ExponentialHistogramDataPoint(
        attributes=stream.attributes,
        start_time_unix_nano=part.start,
        time_unix_nano=now,
        count=part.zeros + int(part.counts.sum()),
        sum=part.total,
        scale=scale,
        zero_count=part.zeros,
        positive=buckets,
        negative=Buckets(0, []),
        flags=0,
        min=None,  # type: ignore[arg-type]  # the smallest magnitude is not kept; the wire format has it optional
        max=stream.maximum if part.whole else None,  # type: ignore[arg-type]
        exemplars=_exemplars(stream.sample, part),
    )


def _exponential_buckets(counts: "NDArray[np.int64]", span: "BucketRange", most: int) -> tuple[int, Buckets]:
    """Return scale and buckets of the counts per slot, at the finest scale that all occupied slots have."""
    occupied = np.flatnonzero(counts)
    if not len(occupied):
        return span.scale, Buckets(0, [])
    scales, indexes = (array[occupied] for array in span.slot_indexes())
    scale = int(scales.min())
    return _merged(counts[occupied], indexes >> (scales - scale), scale, most)


def downscale(counts: "NDArray[np.int64]", offset: int, scale: int, most: int) -> tuple[int, Buckets]:
    """Return the finest scale with at most ``most`` (2 or more) occupied buckets, and the buckets at that scale.

    Args:
        counts: Elements per bucket, in ascending order.
        offset: OTLP index of the first bucket.
        scale: Their scale.
        most: Maximum number of buckets from the first to the last occupied one.
    """
    occupied = np.flatnonzero(counts)
    return _merged(counts[occupied], occupied + offset, scale, most) if len(occupied) else (scale, Buckets(0, []))


def _merged(counts: "NDArray[np.int64]", indexes: "NDArray[np.int64]", scale: int, most: int) -> tuple[int, Buckets]:
    """Return the buckets at the finest scale with at most ``most`` of them.

    Each step to a coarser scale merges two neighbouring buckets: bucket ``i`` becomes part of bucket ``i >> 1``.
    Source: OTLP data model, "Exponential Scale".
    """
    shift = 0
    while (int(indexes[-1]) >> shift) - (int(indexes[0]) >> shift) + 1 > most:
        shift += 1
    first = int(indexes[0]) >> shift
    coarse = (indexes >> shift) - first
    sums = np.zeros(int(coarse[-1]) + 1, dtype=np.int64)
    np.add.at(sums, coarse, counts)
    return scale - shift, Buckets(first, sums.tolist())


def _exemplars(sample: "Sample | None", part: HistogramPart) -> list[Exemplar]:
    # A delta point carries only exemplars of its own interval; a cumulative point carries the latest one.
    if sample is None or sample.time_unix_nano < part.start:
        return []
    return [Exemplar({}, sample.value, sample.time_unix_nano, sample.ids.span_id, sample.ids.trace_id)]
