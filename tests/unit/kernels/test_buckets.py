import math
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nissa.errors import ConfigurationError
from nissa.kernels.buckets import FULL_RANGE
from nissa.kernels.moments import BucketRange, Layout, Thresholds, decode
from nissa.kernels.reference import measure

SCALES = range(-4, 9)

LOWEST = {scale: -(1022 >> max(-scale, 0) << max(-scale, 0)) for scale in SCALES}
"""The smallest exponent that a range may begin with."""

unhurried = settings(deadline=None)
"""The first example of a range makes its tables."""


def exact_index(value: float, scale: int) -> int:
    """The OTLP bucket of a positive number, in integer arithmetic: the i with 2**i < value**(2**scale) <= 2**(i+1)."""
    power = Fraction(value) ** (1 << max(scale, 0))
    octave = (power.numerator - 1).bit_length() - 1 - (power.denominator.bit_length() - 1)
    return octave >> max(-scale, 0)


def slot_of(values: torch.Tensor, span: BucketRange) -> list[str | int]:
    """Where the kernel puts each element on its own: an OTLP bucket index, or the name of another count."""
    moments = decode(measure(list(values.reshape(-1)), Layout(span), Thresholds()).numpy(), Layout(span))
    assert moments.buckets is not None
    found: list[str | int] = []
    for row in range(len(moments)):
        names = ("zeros", "nonfinite", "underflow", "overflow")
        hits: list[str | int] = [name for name in names if getattr(moments, name)[row]]
        hits += [span.offset + int(i) for i in moments.buckets[row].nonzero()[0]]
        assert len(hits) == 1
        found += hits
    return found


def expected_slot(value: float, span: BucketRange) -> str | int:
    magnitude = abs(value)
    if not math.isfinite(magnitude):
        return "nonfinite"
    if magnitude == 0:
        return "zeros"
    if magnitude <= 2.0**span.min_exponent:
        return "underflow"
    return "overflow" if magnitude > 2.0**span.max_exponent else exact_index(magnitude, span.scale)


def neighbours(values: NDArray[Any]) -> list[float]:
    return [*np.nextafter(values, -np.inf).tolist(), *values.tolist(), *np.nextafter(values, np.inf).tolist()]


@pytest.mark.parametrize("scale", SCALES)
def test_boundaries_are_the_largest_float64_that_does_not_exceed_the_true_bound(scale: int) -> None:
    span = BucketRange(scale, min_exponent=-16, max_exponent=16)
    bounds = span.boundaries()
    root = 1 << max(scale, 0)
    for index, bound in zip(range(span.offset, span.offset + span.size + 1), bounds.tolist(), strict=True):
        true_power = Fraction(2) ** (index << max(-scale, 0))
        assert Fraction(bound) ** root <= true_power < Fraction(math.nextafter(bound, math.inf)) ** root


@pytest.mark.parametrize("scale", SCALES)
def test_elements_at_and_beside_boundaries_fall_into_their_exact_bucket(scale: int) -> None:
    span = BucketRange(scale, min_exponent=-16, max_exponent=16)
    bounds = span.boundaries()
    picked = bounds[:: max(1, len(bounds) // 60)]
    values = neighbours(picked) + neighbours(2.0 ** np.arange(-17, 18)) + [-value for value in neighbours(picked)]
    assert slot_of(torch.tensor(values, dtype=torch.float64), span) == [expected_slot(value, span) for value in values]


@unhurried
@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(SCALES))
def test_any_float64_falls_into_its_exact_bucket(value: float, scale: int) -> None:
    span = BucketRange(scale)
    assert slot_of(torch.tensor([value], dtype=torch.float64), span) == [expected_slot(value, span)]


@unhurried
@given(st.floats(min_value=2.0**-48, max_value=2.0**16, width=32), st.sampled_from(SCALES))
def test_any_covered_float32_falls_into_its_exact_bucket(value: float, scale: int) -> None:
    span = BucketRange(scale)
    assert slot_of(torch.tensor([value], dtype=torch.float32), span) == [expected_slot(value, span)]


@st.composite
def near_a_bound(draw: st.DrawFn) -> tuple[float, BucketRange]:
    """A float64 at most two steps beside a bound of any scale, wherever in the range of float64."""
    scale = draw(st.sampled_from(SCALES))
    octaves = 1 << max(-scale, 0)
    low = draw(st.integers(LOWEST[scale] // octaves, 1023 // octaves - 1)) * octaves
    span = BucketRange(scale, low, low + octaves)
    value = float(draw(st.sampled_from(span.boundaries().tolist())))
    for _ in range(draw(st.integers(0, 2))):
        value = math.nextafter(value, draw(st.sampled_from([0.0, math.inf])))
    return value, span


@unhurried
@given(near_a_bound())
def test_beside_any_bound_a_float64_falls_into_its_exact_bucket(found: tuple[float, BucketRange]) -> None:
    value, span = found
    assert slot_of(torch.tensor([value], dtype=torch.float64), span) == [expected_slot(value, span)]


@unhurried
@given(st.sampled_from(SCALES), st.data())
def test_a_bucket_ends_at_its_power_and_includes_it(scale: int, data: st.DataObject) -> None:
    # Powers of two are the bounds that a float64 can be; each closes the bucket below it.
    octaves = 1 << max(-scale, 0)
    exponent = data.draw(st.integers(LOWEST[scale] // octaves + 1, 1023 // octaves - 1)) * octaves
    span = BucketRange(scale, exponent - octaves, exponent + octaves)
    power = 2.0**exponent
    values = torch.tensor([math.nextafter(power, 0), power, math.nextafter(power, math.inf)], dtype=torch.float64)
    last = (exponent << scale if scale >= 0 else exponent >> -scale) - 1
    assert slot_of(values, span) == [last, last, last + 1]


@unhurried
@given(st.floats(2.0**-900, 2.0**900), st.sampled_from(SCALES))
def test_decimals_agree_that_a_value_lies_between_the_bounds_of_its_bucket(value: float, scale: int) -> None:
    octaves = 1 << max(-scale, 0)
    low = (math.frexp(value)[1] - 2) // octaves * octaves
    span = BucketRange(scale, low, low + 2 * octaves)
    (index,) = slot_of(torch.tensor([value], dtype=torch.float64), span)
    assert isinstance(index, int)
    with localcontext(Context(prec=800)):  # enough for every float64 as it is
        exponents = [Decimal(bound) / (1 << max(scale, 0)) * (1 << max(-scale, 0)) for bound in (index, index + 1)]
        lower, upper = (Decimal(2) ** exponent for exponent in exponents)
        assert lower < Decimal(value) <= upper


@unhurried
@given(st.integers(1, 2**52 - 1), st.sampled_from(SCALES))
def test_no_range_reaches_the_subnormals_of_float64_and_they_underflow(bits: int, scale: int) -> None:
    value = torch.tensor([bits, bits + torch.iinfo(torch.int64).min]).view(torch.float64)
    span = BucketRange(scale, LOWEST[scale], LOWEST[scale] + (1 << max(-scale, 0)))
    assert slot_of(value, span) == ["underflow", "underflow"]


@unhurried
@given(st.integers(1, 2**23 - 1), st.sampled_from(SCALES))
def test_subnormals_of_float32_fall_into_their_exact_bucket(bits: int, scale: int) -> None:
    value = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    span = BucketRange(scale, -160, 16)
    assert slot_of(value, span) == [expected_slot(bits * 2.0**-149, span)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_falls_into_its_exact_bucket(dtype: torch.dtype) -> None:
    values = torch.arange(-(2**15), 2**15, 37, dtype=torch.int16).view(dtype)
    span = BucketRange(min_exponent=-140, max_exponent=15)
    assert slot_of(values, span) == [expected_slot(value, span) for value in values.tolist()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_subnormals_underflow_and_are_never_zeros(dtype: torch.dtype) -> None:
    # Made from bits: the smallest subnormal of each sign, and a signed zero.
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    sign = torch.iinfo(integers).min
    values = torch.tensor([1, sign + 1, sign], dtype=integers).view(dtype)
    assert slot_of(values, BucketRange(min_exponent=-20)) == ["underflow", "underflow", "zeros"]


def test_float32_subnormals_can_be_bucketed() -> None:
    value = torch.tensor([3], dtype=torch.int32).view(torch.float32)
    assert slot_of(value, BucketRange(min_exponent=-150)) == [exact_index(3 * 2.0**-149, 3)]


def test_the_default_range_has_512_buckets_from_its_otlp_offset() -> None:
    span = BucketRange()
    assert (span.size, span.offset) == (512, -384)
    assert span.boundaries()[[0, -1]].tolist() == [2.0**-48, 2.0**16]


def test_the_range_of_a_row_is_that_of_float32_in_octaves_and_of_float64_in_sixteen_of_them() -> None:
    assert (FULL_RANGE.size, FULL_RANGE.before, FULL_RANGE.inner_size) == (844, 165, 512)
    scales, indexes = FULL_RANGE.slot_indexes()
    bounds = FULL_RANGE.boundaries()
    assert len(scales) == len(indexes) == 844 + 2
    for scale, index, lower, upper in zip(scales[1:-1], indexes[1:-1], bounds, bounds[1:], strict=False):
        # The bucket of both ends, which exact_index finds in integer arithmetic.
        assert exact_index(upper, int(scale)) == index
        assert exact_index(math.nextafter(lower, math.inf), int(scale)) in {index, index - 1 if scale > 0 else index}
    assert [(int(scales[i]), int(indexes[i])) for i in (0, -1)] == [(-4, -64), (-4, 63)]


@unhurried
@given(st.floats(2.0**-1008, 2.0**1008, exclude_min=True))
def test_any_float64_falls_into_its_exact_bucket_of_the_full_range(value: float) -> None:
    layout = Layout(FULL_RANGE)
    moments = decode(measure([torch.tensor([value], dtype=torch.float64)], layout, Thresholds()).numpy(), layout)
    assert moments.buckets is not None
    (bucket,) = moments.buckets[0].nonzero()[0].tolist()
    scales, indexes = FULL_RANGE.slot_indexes()
    assert indexes[bucket + 1] == exact_index(value, int(scales[bucket + 1]))
    fine, float32 = 2.0**-48 < value <= 2.0**16, 2.0**-160 < value <= 2.0**128
    assert scales[bucket + 1] == (3 if fine else 0 if float32 else -4)


@pytest.mark.parametrize(
    "outer",
    [
        BucketRange(3, -60, 20),
        BucketRange(1, -60, 20),
        BucketRange(0, -48, 20),
        BucketRange(0, -60, 16),
        BucketRange(-4, -64, 32),
    ],
    ids=["as fine", "finer than octaves", "not below", "not above", "across a bucket"],
)
def test_an_outer_range_that_does_not_extend_the_inner_one_is_refused(outer: BucketRange) -> None:
    with pytest.raises(ConfigurationError, match="must be coarser"):
        BucketRange(3, -48, 16 if outer.scale >= -3 else 8, within=outer)


def test_negative_scales_merge_octaves() -> None:
    span = BucketRange(scale=-2, min_exponent=-8, max_exponent=8)
    assert (span.size, span.offset, span.boundaries().tolist()) == (4, -2, [2.0**-8, 2.0**-4, 1.0, 2.0**4, 2.0**8])


def test_boundaries_cannot_be_changed_by_whoever_reads_them() -> None:
    with pytest.raises(ValueError, match="read-only"):
        BucketRange().boundaries()[0] = 1.0


@pytest.mark.parametrize(
    ("scale", "lowest", "highest"),
    [(9, -48, 16), (-5, -48, 16), (3, 16, 16), (3, 4, -4), (3, -1023, 0), (3, 0, 1024), (-2, -6, 8), (-2, -8, 6)],
)
def test_a_range_that_buckets_cannot_fill_is_refused(scale: int, lowest: int, highest: int) -> None:
    with pytest.raises(ConfigurationError, match="must"):
        BucketRange(scale, lowest, highest)
