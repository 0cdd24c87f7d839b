"""Counting at a coarse scale is counting at a fine one and downscaling, as the SDK does it; and its mapping is ours."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics._internal.exponential_histogram.buckets import Buckets
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping

from nissa.kernels.moments import BucketRange, Layout, Thresholds, decode
from nissa.kernels.reference import measure
from nissa.otel.metrics.points import downscale

SCALES = range(-4, 9)
LOW, HIGH = -32, 32

magnitudes = st.lists(st.floats(2.0**LOW, 2.0**HIGH, exclude_min=True), min_size=1, max_size=40)
# Each with a neighbour, where an index that is off by one shows.
powers = st.lists(st.integers(LOW + 1, HIGH - 1).map(lambda exponent: 2.0**exponent), min_size=1, max_size=8).map(
    lambda some: [each for power in some for each in (power, math.nextafter(power, 0), math.nextafter(power, math.inf))]
)
unhurried = settings(deadline=None)


def counted(values: list[float], scale: int) -> tuple[int, list[int]]:
    """Offset of the first occupied bucket, and the counts up to the last, as the kernel counts them."""
    layout = Layout(BucketRange(scale, LOW, HIGH))
    moments = decode(measure([torch.tensor(values, dtype=torch.float64)], layout, Thresholds()).numpy(), layout)
    assert moments.buckets is not None
    assert moments.bucket_range is not None
    occupied = moments.buckets[0].nonzero()[0]
    counts = moments.buckets[0, occupied[0] : occupied[-1] + 1].tolist()
    return moments.bucket_range.offset + int(occupied[0]), counts


def downscaled(offset: int, counts: list[int], amount: int) -> tuple[int, list[int]]:
    """The same by the SDK."""
    make: Any = Buckets  # unannotated
    buckets = make()
    buckets._counts = list(counts)
    buckets.index_start = buckets.index_base = offset
    buckets.index_end = offset + len(counts) - 1
    buckets.downscale(amount)
    return buckets.offset, [buckets[index] for index in range(len(buckets))]


@unhurried
@given(magnitudes | powers, st.sampled_from(SCALES), st.sampled_from(SCALES))
def test_counting_coarsely_is_counting_finely_and_downscaling(values: list[float], one: int, other: int) -> None:
    coarse, fine = sorted((one, other))
    assert downscaled(*counted(values, fine), fine - coarse) == counted(values, coarse)


@unhurried
@given(magnitudes | powers, st.sampled_from(SCALES), st.integers(2, 160))
def test_what_is_exported_is_what_would_have_been_counted_at_its_scale(
    values: list[float], scale: int, most: int
) -> None:
    offset, counts = counted(values, scale)
    coarse, buckets = downscale(np.array(counts, dtype=np.int64), offset, scale, most)
    assert len(buckets.bucket_counts) <= most
    assert (buckets.offset, list(buckets.bucket_counts)) == downscaled(offset, counts, scale - coarse)
    if coarse in SCALES:
        assert (buckets.offset, list(buckets.bucket_counts)) == counted(values, coarse)


@pytest.mark.parametrize("scale", SCALES)
def test_powers_of_two_are_where_the_sdk_puts_them(scale: int) -> None:
    mapping: Any = LogarithmMapping(scale) if scale > 0 else ExponentMapping(scale)
    for exponent in range(LOW + 1, HIGH + 1):
        assert counted([2.0**exponent], scale) == (mapping.map_to_index(2.0**exponent), [1])


@unhurried
@given(st.floats(2.0**LOW, 2.0**HIGH, exclude_min=True), st.sampled_from(SCALES))
def test_any_value_is_where_the_sdk_puts_it_but_for_its_rounding_at_a_bound(value: float, scale: int) -> None:
    mapping: Any = LogarithmMapping(scale) if scale > 0 else ExponentMapping(scale)
    index, _ = counted([value], scale)
    position = math.log2(value) * 2.0**scale
    beside = abs(position - round(position)) < 1e-9  # there its logarithm may round across
    assert abs(index - mapping.map_to_index(value)) <= beside
