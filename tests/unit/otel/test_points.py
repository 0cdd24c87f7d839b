"""Exponential buckets as we downscale them, against the SDK's own mapping and merging, and against numpy."""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics._internal.exponential_histogram.buckets import Buckets as SdkBuckets
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping
from opentelemetry.sdk.metrics.export import ExponentialHistogramDataPoint

from nissa.kernels.moments import BucketRange, Moments
from nissa.otel.metrics.gauges import GaugeRow
from nissa.otel.metrics.points import (
    GaugePoints,
    HistogramPart,
    downscale,
    exponential_point,
)
from nissa.otel.metrics.store import MagnitudeStream
from tests.unit.otel.conftest import moments_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANGE = BucketRange()
SLOTS = RANGE.size + 2

counts_of = st.dictionaries(st.integers(0, SLOTS - 1), st.integers(1, 1000), max_size=60).map(
    lambda found: np.array([found.get(index, 0) for index in range(SLOTS)], dtype=np.int64)
)
magnitudes = st.lists(
    st.floats(2.0**-47, 2.0**15, allow_subnormal=False).filter(lambda value: not is_near_a_bound(value)),
    min_size=1,
    max_size=80,
)


def is_near_a_bound(value: float) -> bool:
    """Say whether the SDK's logarithm may put a value beside its bucket."""
    position = math.log2(value) * 2**RANGE.scale
    return bool(abs(position - round(position)) < 1e-6)


def sdk_index(value: float, scale: int) -> int:
    mapping: Any = LogarithmMapping(scale) if scale > 0 else ExponentMapping(scale)
    return int(mapping.map_to_index(value))


def sdk_downscaled(counts: "NDArray[np.int64]", offset: int, amount: int) -> tuple[int, list[int]]:
    occupied = np.flatnonzero(counts)
    make: Any = SdkBuckets  # unannotated
    buckets = make()
    buckets._counts = counts[occupied[0] : occupied[-1] + 1].tolist()
    buckets.index_start = buckets.index_base = int(occupied[0]) + offset
    buckets.index_end = int(occupied[-1]) + offset
    buckets.downscale(amount)
    return buckets.offset, [buckets[index] for index in range(len(buckets))]


def stream_of(moments: Moments) -> MagnitudeStream:
    assert moments.buckets is not None
    assert moments.bucket_range is not None
    counts = np.concatenate((moments.underflow, moments.buckets[0], moments.overflow))
    total = float(moments.abs_total[0])
    return MagnitudeStream({}, 0, moments.bucket_range, counts, zeros=int(moments.zeros[0]), total=total)


def occupied(point: ExponentialHistogramDataPoint) -> dict[int, int]:
    counts = point.positive.bucket_counts
    return {point.positive.offset + index: count for index, count in enumerate(counts) if count}


def exact_index(value: float, scale: int) -> int:
    """Return the OTLP index of a value by rational arithmetic; at positive scales by logarithm, not close to a bound."""
    if scale > 0:
        return math.ceil(math.log2(value) * 2.0**scale) - 1
    power = Fraction(value)
    octave = (power.numerator - 1).bit_length() - 1 - (power.denominator.bit_length() - 1)
    return octave >> -scale


def whole(stream: MagnitudeStream) -> HistogramPart:
    return HistogramPart(stream.start, stream.counts, stream.zeros, stream.total, whole=True)


@given(counts=counts_of, most=st.integers(2, 320))
def test_downscaling_keeps_the_total_and_the_bound(counts: "NDArray[np.int64]", most: int) -> None:
    _, buckets = downscale(counts, RANGE.offset - 1, RANGE.scale, most)
    assert sum(buckets.bucket_counts) == counts.sum()
    assert len(buckets.bucket_counts) <= most
    assert all(isinstance(count, int) for count in buckets.bucket_counts)
    if counts.any():
        assert buckets.bucket_counts[0]
        assert buckets.bucket_counts[-1]


@given(counts=counts_of.filter(np.any), most=st.integers(2, 320))
def test_downscaling_agrees_with_the_sdk_s(counts: "NDArray[np.int64]", most: int) -> None:
    scale, buckets = downscale(counts, RANGE.offset - 1, RANGE.scale, most)
    expected = sdk_downscaled(counts, RANGE.offset - 1, RANGE.scale - scale)
    assert (buckets.offset, list(buckets.bucket_counts)) == expected


@given(counts=counts_of.filter(np.any), most=st.integers(2, 320))
def test_downscaling_goes_no_further_than_it_must(counts: "NDArray[np.int64]", most: int) -> None:
    scale, _ = downscale(counts, RANGE.offset - 1, RANGE.scale, most)
    if scale < RANGE.scale:
        finer = sdk_downscaled(counts, RANGE.offset - 1, RANGE.scale - scale - 1)
        assert len(finer[1]) > most


@pytest.mark.parametrize("scale", [-2, 0, 8])
def test_downscaling_holds_for_the_widest_ranges(scale: int) -> None:
    span = BucketRange(scale, -64, 64)
    counts = np.ones(span.size, dtype=np.int64)
    coarse, buckets = downscale(counts, span.offset, span.scale, 2)
    assert list(buckets.bucket_counts) == [span.size // 2, span.size // 2]
    assert buckets.offset == -1
    assert coarse == -6


def test_nothing_counted_is_no_bucket() -> None:
    assert downscale(np.zeros(4, dtype=np.int64), 5, 3, 160)[1].bucket_counts == []


@given(values=magnitudes, most=st.integers(2, 160))
def test_each_value_is_in_the_bucket_that_the_sdk_puts_it_in(values: list[float], most: int) -> None:
    offset = RANGE.offset - 1
    counts = np.zeros(SLOTS, dtype=np.int64)
    for value in values:
        counts[sdk_index(value, RANGE.scale) - offset] += 1
    scale, buckets = downscale(counts, offset, RANGE.scale, most)
    expected = Counter(sdk_index(value, scale) for value in values)
    found = {buckets.offset + index: count for index, count in enumerate(buckets.bucket_counts) if count}
    assert found == expected


@given(values=magnitudes)
def test_the_kernel_s_buckets_are_the_sdk_s(values: list[float]) -> None:
    bounds = RANGE.boundaries()
    slots = np.searchsorted(bounds, values, side="left") - 1
    assert [int(slot) + RANGE.offset for slot in slots] == [sdk_index(value, RANGE.scale) for value in values]


@pytest.mark.parametrize("most", [160, 40, 10])
@pytest.mark.parametrize("q", [0.01, 0.25, 0.5, 0.9, 0.99])
def test_quantiles_of_the_exported_point_agree_with_numpy(
    make_moments: Callable[..., Moments], most: int, q: float
) -> None:
    values = np.abs(np.random.default_rng(7).standard_normal(5000)) ** 3
    stream = stream_of(make_moments(values))
    point = exponential_point(stream, whole(stream), 1, most)
    base = 2.0 ** (2.0**-point.scale)
    ranks = np.cumsum(point.positive.bucket_counts)
    index = int(np.searchsorted(ranks, math.ceil(q * len(values)))) + point.positive.offset
    lower, upper = base**index, base ** (index + 1)
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert len(point.positive.bucket_counts) <= most
    assert lower < exact <= upper * (1 + 1e-12)
    estimate = 2 * lower * upper / (lower + upper)
    assert abs(estimate - exact) <= exact * (base - 1) / (base + 1) * (1 + 1e-9)


def test_a_point_counts_zeros_underflow_and_overflow_each_in_its_place(make_moments: Callable[..., Moments]) -> None:
    stream = stream_of(make_moments([0.0, -0.0, 2.0**-60, 1.5, -1.5, 2.0**20, math.nan]))
    point = exponential_point(stream, whole(stream), 1, 1000)
    assert point.zero_count == 2
    assert point.count == 6 == point.zero_count + sum(point.positive.bucket_counts)
    assert (point.scale, occupied(point)) == (0, {-61: 1, 0: 2, 19: 1})
    assert list(point.negative.bucket_counts) == []
    assert point.sum == pytest.approx(3.0 + 2.0**20 + 2.0**-60)


@given(
    values=st.lists(
        st.floats(2.0**-1000, 2.0**1000)
        | st.floats(2.0**-149, 2.0**127)
        | st.floats(2.0**-47, 2.0**15).filter(lambda value: not is_near_a_bound(value)),
        min_size=1,
        max_size=30,
    ),
    most=st.integers(2, 160),
)
def test_every_magnitude_is_exported_in_its_bucket(values: list[float], most: int) -> None:
    stream = stream_of(moments_of(values))
    point = exponential_point(stream, whole(stream), 1, most)
    assert len(point.positive.bucket_counts) <= most
    assert occupied(point) == Counter(exact_index(value, point.scale) for value in values)
    if all(2.0**-160 < value <= 2.0**128 for value in values) and most >= 160:
        assert point.scale >= -1


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 1.1], 3),
        ([1.0, 2.0**-49], 0),
        ([1e-45, 1.0], 0),
        ([1e-45, 3e38], -1),
        ([2.0**-200, 1.0], -4),
        ([5e-324, 1.7e308], -4),
    ],
)
def test_the_scale_is_the_finest_that_all_magnitudes_were_counted_at(values: list[float], scale: int) -> None:
    stream = stream_of(moments_of(values))
    point = exponential_point(stream, whole(stream), 1, 160)
    assert point.scale == scale
    # A subnormal of float64 is rounded up to a normal number, as the data model of OTLP permits.
    assert occupied(point) == Counter(exact_index(max(value, 2.0**-1022), scale) for value in values)


def test_gauge_points_are_made_when_asked_for_and_are_a_sequence() -> None:
    rows = [
        GaugeRow([{"n": 1}, {"n": 2}], 10, np.array([math.nan, 2.0])),
        GaugeRow([{"n": 1}, {"n": 2}], 20, (3.0, math.nan)),
    ]
    found = GaugePoints(rows)
    every = list(found)
    assert [(point.attributes, point.time_unix_nano) for point in every] == [
        ({"n": 2}, 10),
        ({"n": 1}, 20),
        ({"n": 2}, 20),
    ]
    assert [point.value for point in every[:2]] == [2.0, 3.0]
    assert math.isnan(every[2].value)
    assert len(found) == 3
    assert [found[0], found[1]] == every[:2] == found[:2]
    assert found[-2] == every[1]
    assert found[0] is not found[0]
    with pytest.raises(IndexError):
        found[3]
    assert not GaugePoints([GaugeRow([{}], 10, np.array([math.nan]))])
