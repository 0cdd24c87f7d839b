"""Exponential histograms as shares over time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.recordings import Distribution, DistributionStream, Process
from nissa.report.distributions import band_of, quantiles_of, total_of

counts = st.lists(st.integers(0, 50), min_size=1, max_size=30)


def stream(*points: tuple[int, int, int, list[int]], cumulative: bool = True, start: int = 1) -> DistributionStream:
    found = [Distribution(start, time, scale, offset, np.array(given), 3) for time, scale, offset, given in points]
    return DistributionStream("m", {}, Process({}), cumulative, tuple(found))


def test_a_column_holds_what_was_counted_since_the_one_before() -> None:
    band = band_of(stream((10, 0, 0, [2, 2]), (20, 0, 0, [2, 10])), 10, 10)
    assert band is not None
    assert band.edges.tolist() == [1, 10, 20]
    assert band.bounds.tolist() == [1, 2, 4]
    assert band.shares.T.tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_what_is_no_total_is_taken_as_it_is() -> None:
    band = band_of(stream((10, 0, 0, [1, 0]), (20, 0, 0, [1, 0]), cumulative=False), 10, 10)
    assert band is not None
    assert band.shares.tolist() == [[1.0, 1.0]]


def test_points_of_different_scales_are_compared_at_the_coarser_one() -> None:
    band = band_of(stream((10, 1, 0, [4, 4]), (20, 0, 0, [8, 8])), 10, 10)
    assert band is not None
    assert band.bounds.tolist() == [1, 2, 4]
    assert band.shares.T.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_stream_that_began_anew_starts_from_nothing() -> None:
    before, after = stream((10, 0, 0, [5])).points[0], stream((30, 0, 0, [2]), start=20).points[0]
    band = band_of(DistributionStream("m", {}, Process({}), cumulative=True, points=(before, after)), 10, 10)
    assert band is not None
    assert band.shares.tolist() == [[1.0, 1.0]]


def test_nothing_but_zeros_is_no_distribution() -> None:
    assert band_of(stream((10, 0, 0, [0, 0])), 10, 10) is None


def test_the_smallest_thousandth_gets_no_bucket_but_counts() -> None:
    band = band_of(stream((10, 0, -40, [1, *[0] * 38, 4000, 4000])), 10, 10)
    assert band is not None
    assert band.bounds.tolist() == [0.5, 1, 2]
    assert band.shares.sum() == pytest.approx(8000 / 8001)


@given(counts, counts, st.integers(-60, 20), st.integers(2, 12))
def test_shares_are_at_most_all_and_few_enough(one: list[int], other: list[int], offset: int, rows: int) -> None:
    streams = [stream((10, 3, offset, one)), stream((10, 2, offset, other))]
    band = total_of(streams, 8, rows)
    assert (band is None) == (not sum(one) + sum(other))
    if band is not None:
        assert len(band.bounds) <= rows + 1
        assert (np.diff(band.bounds) > 0).all()
        assert 0.99 < band.shares.sum() <= 1 + 1e-9


def test_columns_are_put_together_until_they_are_few_enough() -> None:
    points = [(10 * step, 0, 0, [step]) for step in range(1, 101)]
    band = band_of(stream(*points), 7, 10)
    assert band is not None
    assert band.shares.shape == (1, 7)
    assert band.edges[-1] == 1000


def test_quantiles_are_those_of_the_columns() -> None:
    band = band_of(stream((10, 0, 0, [90, 9, 1])), 10, 10)
    assert band is not None
    found = {level: values.tolist() for level, _, values in quantiles_of(band)}
    assert found == {0.01: [2**0.5], 0.5: [2**0.5], 0.99: [2**1.5]}
