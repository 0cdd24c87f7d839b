"""OpenTelemetry data points, each from the part of a stream that it tells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, overload

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

    from nissa.backends.otel.gauges import Point, Points, Row
    from nissa.backends.otel.store import HistogramStream, MagnitudeStream, Sample
    from nissa.semconv.metrics import MetricSpec

EXPLICIT_STEP: Final = 2
"""Octaves per bucket where exponential histograms have to become explicit ones."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a distribution that a point tells.

    Args:
        whole: It is all of the stream, not what was gained since a reader was given it last.
    """

    start: int
    counts: "NDArray[np.int64]"
    zeros: int
    total: float
    whole: bool


class GaugePoints(Sequence[NumberDataPoint]):
    """The points of rows, each made when it is asked for.

    An encoder takes one after the other. Were all of an export alive at once, the interpreter would look for garbage
    among all objects of the process, and the training thread would wait for that.
    """

    def __init__(self, rows: "Sequence[Row | Point | Points]") -> None:
        self.rows = rows
        self._size = sum(row.size() for row in rows)

    def __len__(self) -> int:
        return self._size

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
        place = range(self._size)[index]
        return next(islice(self, place, None))


def histogram_point(spec: "MetricSpec", stream: "HistogramStream", part: Part, now: int) -> HistogramDataPoint:
    """Return the point of a stream with explicit buckets."""
    return HistogramDataPoint(
        attributes=stream.attributes,
        start_time_unix_nano=part.start,
        time_unix_nano=now,
        count=int(part.counts.sum()),
        sum=part.total,
        bucket_counts=part.counts.tolist(),
        explicit_bounds=list(spec.bounds),
        # The extremes of an interval are not kept, only those of the whole: absent rather than wrong.
        min=stream.minimum if part.whole else None,  # type: ignore[arg-type]  # the wire format has it optional
        max=stream.maximum if part.whole else None,  # type: ignore[arg-type]
        exemplars=_exemplars(stream.sample, part),
    )


def explicit_point(stream: "MagnitudeStream", part: Part, now: int) -> HistogramDataPoint:
    """Return the point of a stream of magnitudes in coarse explicit buckets; zeros are in the lowest."""
    per_bucket = EXPLICIT_STEP << stream.range.scale
    inner = np.add.reduceat(part.counts[1:-1], np.arange(0, stream.range.size, per_bucket))
    low, high = stream.range.min_exponent, stream.range.max_exponent
    counts = [part.zeros + int(part.counts[0]), *inner.tolist(), int(part.counts[-1])]
    return HistogramDataPoint(
        attributes=stream.attributes,
        start_time_unix_nano=part.start,
        time_unix_nano=now,
        count=sum(counts),
        sum=part.total,
        bucket_counts=counts,
        explicit_bounds=[2.0 ** min(low + EXPLICIT_STEP * step, high) for step in range(len(inner) + 1)],
        min=None,  # type: ignore[arg-type]  # not kept; the wire format has it optional
        max=stream.maximum if part.whole else None,  # type: ignore[arg-type]
        exemplars=_exemplars(stream.sample, part),
    )


def exponential_point(
    stream: "MagnitudeStream", part: Part, now: int, most_buckets: int
) -> ExponentialHistogramDataPoint:
    """Return the point of a stream of magnitudes in at most so many exponential buckets."""
    scale, buckets = downscale(part.counts, stream.range.offset - 1, stream.range.scale, most_buckets)
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


def downscale(counts: "NDArray[np.int64]", offset: int, scale: int, most: int) -> tuple[int, Buckets]:
    """Return the finest scale at which the occupied buckets are at most ``most`` (2 or more), and the buckets at it.

    Two neighbours become one per step down: bucket ``i`` at a scale lies in bucket ``i >> 1`` at the next coarser one.
    Source: OTLP data model, "Exponential Scale".
    """
    occupied = np.flatnonzero(counts)
    if not len(occupied):
        return scale, Buckets(0, [])
    indexes = occupied + offset
    shift = 0
    while (int(indexes[-1]) >> shift) - (int(indexes[0]) >> shift) + 1 > most:
        shift += 1
    first = int(indexes[0]) >> shift
    coarse = (indexes >> shift) - first
    sums = np.zeros(int(coarse[-1]) + 1, dtype=np.int64)
    np.add.at(sums, coarse, counts[occupied])
    return scale - shift, Buckets(first, sums.tolist())


def _exemplars(sample: "Sample | None", part: Part) -> list[Exemplar]:
    # Each exemplar is sent with the interval it fell into; a reader of totals gets the latest.
    if sample is None or sample.time_unix_nano < part.start:
        return []
    return [Exemplar({}, sample.value, sample.time_unix_nano, sample.ids.span_id, sample.ids.trace_id)]
