"""Fewer points that look the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nissa.charts import Series, thin
from nissa.charts.series import LEAST, averaged

values = arrays(np.float64, st.integers(1, 400), elements=st.floats(width=32))


def series(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Series:
    count = len(values)
    return Series("s", np.arange(count, dtype=np.int64) * 7, values, np.arange(count, dtype=np.float64))


@given(values, st.integers(0, 60))
def test_every_point_shown_was_measured_and_none_is_out_of_order(
    given: "np.ndarray[tuple[int], np.dtype[np.float64]]", most: int
) -> None:
    whole, few = series(given), thin(series(given), most)
    assert len(few.values) <= max(most, LEAST)
    assert (np.diff(few.times) > 0).all()
    at = few.times // 7
    assert np.array_equal(few.values, whole.values[at], equal_nan=True)
    assert few.steps is not None
    assert np.array_equal(few.steps, at)


@given(values, st.integers(LEAST, 60))
def test_the_ends_and_the_extremes_stay(given: "np.ndarray[tuple[int], np.dtype[np.float64]]", most: int) -> None:
    whole, few = series(given), thin(series(given), most)
    assert few.times[0] == whole.times[0]
    assert few.times[-1] == whole.times[-1]
    if np.isfinite(given).all():
        assert few.values.max() == given.max()
        assert few.values.min() == given.min()


@given(values, st.integers(LEAST, 60))
def test_what_is_not_finite_still_shows_and_the_largest_number_too(
    given: "np.ndarray[tuple[int], np.dtype[np.float64]]", most: int
) -> None:
    whole, few = series(given), thin(series(given), most)
    assert np.isfinite(few.values).all() == np.isfinite(given).all()
    if len(whole.finite):
        assert few.finite.max() == whole.finite.max()


def test_a_short_series_stays_as_it_is() -> None:
    whole = series(np.arange(10.0))
    assert thin(whole, 10) is whole


@pytest.mark.parametrize("count", [1, 5, 10, 997])
def test_averages_are_the_means_of_stretches(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    values[count // 2] = np.nan
    found = averaged(Series("s", np.arange(count, dtype=np.int64), values), 10)
    parts = np.split(values, np.linspace(0, count, min(10, count) + 1).astype(int)[1:-1])
    expected = [np.mean(part[np.isfinite(part)]) if np.isfinite(part).any() else np.nan for part in parts]
    assert found.values.tolist() == pytest.approx(expected, nan_ok=True)
    assert found.times[-1] == count - 1
