from dataclasses import fields
from functools import reduce
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from nissa.errors import ConfigurationError
from nissa.kernels.moments import BucketRange, Column, Layout, Moments, Thresholds, decode, encode, merge
from nissa.kernels.reference import measure

SPAN = BucketRange(scale=1, min_exponent=-8, max_exponent=8)
LAYOUT = Layout(SPAN)
ROUNDED = ("total", "abs_total", "sum_of_squares")

# Magnitudes from below the first bucket to above the last, with zeros and non-finite elements among them.
elements = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1e-9, float("nan"), float("inf")])
rows = st.lists(st.lists(elements, max_size=6), min_size=1, max_size=4)

packed_rows = st.integers(1, 4).flatmap(
    lambda size: arrays(np.int64, (size, LAYOUT.width), elements=st.integers(-(2**63), 2**63 - 1), fill=st.just(7))
)


def moments_of(rows: list[list[float]], layout: Layout = LAYOUT) -> Moments:
    tensors = [torch.tensor(row, dtype=torch.float64) for row in rows]
    return decode(measure(tensors, layout, Thresholds()).numpy(), layout)


def assert_same(left: Moments, right: Moments, *, exactly: bool = False) -> None:
    assert left.bucket_range == right.bucket_range
    for field in fields(Moments):
        if field.name != "bucket_range":
            expected = getattr(right, field.name)
            # Rounding is relative to what was added up, of which little may be left.
            size = right.sum_of_squares if field.name == "sum_of_squares" else right.abs_total
            tolerance = 1e-14 * float(size.max(initial=0.0)) if field.name in ROUNDED and not exactly else 0.0
            np.testing.assert_allclose(getattr(left, field.name), expected, rtol=0, atol=tolerance)
            assert getattr(left, field.name).dtype == expected.dtype


def test_the_columns_of_a_row_are_the_fields_in_their_order() -> None:
    assert [column.name.lower() for column in Column] == [field.name for field in fields(Moments)][:-1]
    assert Layout(None).width == 13
    assert Layout(SPAN).width == 13 + 32
    assert Layout(BucketRange()).width == 13 + 512


@given(rows, st.booleans())
def test_packed_rows_survive_a_round_trip(rows: list[list[float]], bucketed: bool) -> None:
    layout = LAYOUT if bucketed else Layout(None)
    tensors = [torch.tensor(row, dtype=torch.float64) for row in rows]
    packed = measure(tensors, layout, Thresholds()).numpy()
    np.testing.assert_array_equal(encode(decode(packed, layout), layout), packed)


@given(packed_rows)
def test_any_bits_survive_a_round_trip(packed: NDArray[np.int64]) -> None:
    decoded = decode(packed, LAYOUT)
    np.testing.assert_array_equal(encode(decoded, LAYOUT), packed)
    np.testing.assert_array_equal(encode(decoded.select(slice(None, None, -1)), LAYOUT), packed[::-1])


def test_every_column_survives_a_round_trip_on_its_own() -> None:
    packed = np.arange(3 * LAYOUT.width, dtype=np.int64).reshape(3, -1) + 2**60
    decoded = decode(packed, LAYOUT)
    assert decoded.overflow.tolist() == packed[:, Column.OVERFLOW].tolist()
    assert decoded.maximum.tolist() == packed[:, Column.MAXIMUM].copy().view(np.float64).tolist()
    np.testing.assert_array_equal(encode(decoded, LAYOUT), packed)


def test_decoding_copies_no_buckets() -> None:
    packed = measure([torch.ones(3)], LAYOUT, Thresholds()).numpy()
    decoded = decode(packed, LAYOUT)
    assert_same(decoded, moments_of([[1.0] * 3]), exactly=True)
    assert np.shares_memory(decoded.buckets, packed)


@pytest.mark.parametrize("packed", [np.zeros((2, 11), np.int64), np.zeros((2, 13), np.int32), np.zeros(13, np.int64)])
def test_rows_of_another_layout_are_refused(packed: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="13 columns"):
        decode(packed, Layout(None))


def test_encoding_refuses_a_layout_with_other_buckets() -> None:
    with pytest.raises(ValueError, match="Cannot pack"):
        encode(moments_of([[1.0]]), Layout())


def test_counts_above_the_integers_of_float32_are_exact() -> None:
    many = moments_of([[1.0, 0.0]])
    many = decode(encode(many, LAYOUT) * 1, LAYOUT)
    grown = {name: getattr(many, name) * (2**24 + 1) for name in ("count", "zeros", "buckets")}
    rest = {field.name: getattr(many, field.name) for field in fields(Moments) if field.name not in grown}
    large = Moments(**grown, **rest)
    doubled = merge(large, large)
    folded = large.fold(np.array([0]), 1)
    assert doubled.count.tolist() == [2 * 2 * (2**24 + 1)]
    assert doubled.zeros.tolist() == [2 * (2**24 + 1)]
    assert decode(encode(folded, LAYOUT), LAYOUT).zeros.tolist() == [2**24 + 1]
    assert doubled.buckets is not None
    assert doubled.buckets.sum() == 2 * (2**24 + 1)


@given(rows, st.data())
def test_merging_equals_measuring_the_elements_together(first: list[list[float]], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.lists(elements, max_size=6), min_size=len(first), max_size=len(first)))
    together = moments_of([a + b for a, b in zip(first, second, strict=True)])
    assert_same(merge(moments_of(first), moments_of(second)), together)


@given(st.lists(rows.map(lambda some: (some * 2)[:2]), min_size=3, max_size=3))
def test_merging_is_associative_and_commutative(three: list[list[list[float]]]) -> None:
    a, b, c = (moments_of((one * 2)[:2]) for one in three)
    assert_same(merge(a, b), merge(b, a), exactly=True)
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))


def only_counts(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row with counts of which eight add up within int64, and with sums of 0."""
    row = packed[:1] >> 3
    row[:, Column.TOTAL : Column.BUCKETS] = 0
    return row


@given(st.lists(packed_rows.map(only_counts), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_counts_are_added_exactly_in_whatever_order(some: list[NDArray[np.int64]], order: Random) -> None:
    # As Python's integers add up, up to the largest of int64 together.
    shuffled = order.sample(some, len(some))
    merged = reduce(merge, (decode(each, LAYOUT) for each in shuffled))
    folded = decode(np.concatenate(some), LAYOUT).fold(np.zeros(len(some), dtype=np.intp), 1)
    for found in (encode(merged, LAYOUT), encode(folded, LAYOUT)):
        for column in (*range(Column.TOTAL), *range(Column.BUCKETS, LAYOUT.width)):
            assert int(found[0, column]) == sum(int(each[0, column]) for each in some)


@given(st.lists(rows.map(lambda some: some[:1]), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_merging_in_any_order_and_grouping_gives_the_same(some: list[list[list[float]]], order: Random) -> None:
    left = [moments_of(each) for each in some]
    expected = reduce(merge, left)
    while len(left) > 1:  # any two that stand beside each other, in an order of chance
        order.shuffle(left)
        left[:2] = [merge(left[0], left[1])]
    assert_same(left[0], expected)


@given(rows)
def test_a_row_of_nothing_changes_nothing(rows: list[list[float]]) -> None:
    some, nothing = moments_of(rows), moments_of([[] for _ in rows])
    assert_same(merge(some, nothing), some, exactly=True)
    assert_same(merge(nothing, some), some, exactly=True)


@given(rows, st.data())
def test_folding_equals_measuring_the_elements_of_each_group_together(
    rows: list[list[float]], data: st.DataObject
) -> None:
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    together: list[list[float]] = [[], [], []]
    for row, group in zip(rows, groups, strict=True):
        together[group] += row
    assert_same(moments_of(rows).fold(np.array(groups, dtype=np.intp), 3), moments_of(together))


def test_folding_in_two_steps_or_another_order_gives_the_same() -> None:
    values = moments_of([[1.0, 2.0], [float("nan")], [0.0], [4.0, -1e-9], []])
    at_once = values.fold(np.array([1, 0, 1, 0, 1]), 2)
    in_steps = values.fold(np.array([0, 1, 0, 2, 3]), 4).fold(np.array([1, 0, 0, 1]), 2)
    order = [4, 2, 0, 3, 1]
    assert_same(in_steps, at_once)
    assert_same(values.select(order).fold(np.array([1, 1, 1, 0, 0]), 2), at_once)


def test_a_group_without_rows_is_empty_and_not_zero() -> None:
    folded = moments_of([[1.0]]).fold(np.array([1]), 2)
    assert folded.count.tolist() == [0, 1]
    assert np.isnan(folded.minimum[0])
    assert np.isnan(folded.norm[0])


@pytest.mark.parametrize("groups", [[0], [0, 2], [0, -1], [[0], [0]]])
def test_groups_that_do_not_fit_the_rows_are_refused(groups: list[Any]) -> None:
    with pytest.raises(ValueError, match="Expected 2 groups from 0 to 1"):
        moments_of([[1.0], [2.0]]).fold(np.array(groups), 2)


@pytest.mark.parametrize("other", [moments_of([[1.0], [2.0]]), moments_of([[1.0]], Layout(None))])
def test_rows_that_do_not_match_are_not_merged(other: Moments) -> None:
    with pytest.raises(ValueError, match="Cannot merge"):
        merge(moments_of([[1.0]]), other)


def test_rows_are_selected_by_index_mask_or_slice() -> None:
    three = moments_of([[1.0], [2.0], [3.0]])
    assert three.select([2, 0]).total.tolist() == [3.0, 1.0]
    assert three.select(np.array([False, True, False])).total.tolist() == [2.0]
    assert three.select(slice(1, None)).total.tolist() == [2.0, 3.0]
    assert len(three.select([])) == 0
    assert three.select([1]).buckets.shape == (1, 32)  # type: ignore[union-attr]


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=40))
def test_derived_statistics_agree_with_numpy(values: list[float]) -> None:
    array = np.array(values)
    moments = moments_of([values])
    scale = np.abs(array).max()
    np.testing.assert_allclose(moments.mean, [array.mean()], atol=1e-12 * scale)
    np.testing.assert_allclose(moments.std, [array.std(ddof=1)], rtol=1e-9, atol=1e-6 * scale)
    np.testing.assert_allclose(moments.norm, [np.linalg.norm(array)], rtol=1e-12)
    np.testing.assert_allclose(moments.zero_fraction, [(array == 0).mean()])
    np.testing.assert_allclose(moments.vanishing_fraction, [(np.abs(array) < 1e-7).mean()])


def test_what_does_not_exist_is_absent_and_not_zero() -> None:
    nothing = moments_of([[], [float("nan"), float("inf")]])
    names = (
        "mean",
        "std",
        "norm",
        "minimum",
        "maximum",
        "abs_max",
        "zero_fraction",
        "vanishing_fraction",
        "exploding_fraction",
    )
    for name in names:
        assert np.isnan(getattr(nothing, name)).all(), name
    assert np.isnan(nothing.global_norm)
    assert nothing.finite.tolist() == [0, 0]
    assert np.isnan(moments_of([[1.0]]).std[0])


def test_fractions_are_shares_of_the_finite_elements() -> None:
    moments = moments_of([[0.0, 1e-8, 2e3, 1.0, float("nan"), float("-inf")]])
    assert moments.zero_fraction.tolist() == [0.25]
    assert moments.vanishing_fraction.tolist() == [0.5]
    assert moments.exploding_fraction.tolist() == [0.25]


def test_the_global_norm_covers_all_rows_and_cannot_overflow_for_float32() -> None:
    assert moments_of([[3.0], [], [4.0, float("nan")]]).global_norm == 5.0
    largest = torch.full((1000,), torch.finfo(torch.float32).max)
    moments = decode(measure([largest], LAYOUT, Thresholds()).numpy(), LAYOUT)
    np.testing.assert_allclose(moments.global_norm, float(largest[0]) * 1000**0.5)


@pytest.mark.parametrize("name", ["vanishing", "exploding"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_thresholds_that_mean_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Thresholds(**{name: value})
