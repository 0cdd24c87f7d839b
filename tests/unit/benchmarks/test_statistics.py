"""Estimates of the benchmark."""

from math import inf

import numpy as np
import pytest

from benchmarks.steps.statistics import Estimate, extra, mean, times


def test_an_extra_is_a_ratio_of_sums() -> None:
    found = extra([1.0, 2.0, 6.0], [1.0, 2.0, 3.0])
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_blocks_without_noise_have_no_width() -> None:
    found = extra([1.1, 2.2, 3.3], [1.0, 2.0, 3.0])
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_one_pair_shows_nothing() -> None:
    assert extra([2.0], [1.0]) == Estimate(1.0, -inf, inf)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(1_000):
        bare = chance.normal(1.0, 0.05, 8)
        watched = chance.normal(1.03, 0.05, 8)
        found = extra(watched.tolist(), bare.tolist())
        held += found.low <= 0.03 <= found.high
    assert 0.93 < held / 1_000 < 0.97


def test_a_mean_has_the_interval_of_student() -> None:
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(4.303 / 3**0.5, rel=1e-3)


@pytest.mark.parametrize("alike", [0.0, 0.03])
def test_intervals_hold_the_truth_where_pairs_of_a_turn_are_alike(alike: float) -> None:
    chance = np.random.default_rng(1)
    turns = np.repeat(np.arange(15), 4)
    held = by_pairs = 0
    for _ in range(1_000):
        weather = np.repeat(chance.normal(0.0, alike, 15), 4)
        bare, watched = chance.normal(1.0, 0.04, 60), chance.normal(1.02, 0.04, 60) + weather
        found = extra(watched.tolist(), bare.tolist(), turns.tolist())
        alone = extra(watched.tolist(), bare.tolist())
        held += found.low <= 0.02 <= found.high
        by_pairs += alone.low <= 0.02 <= alone.high
    assert 0.92 < held / 1_000 < 0.98
    assert alike == 0.0 or by_pairs / 1_000 < 0.92  # what pairs alone would claim


def test_one_turn_shows_nothing() -> None:
    assert extra([2.0, 2.2], [1.0, 1.0], [0, 0]).high == inf


@pytest.mark.parametrize("divisor", [10.0, 2.5, 1.0])  # told from zero clearly, hardly, and not at all
def test_a_quotient_holds_the_truth_as_often_as_it_says(divisor: float) -> None:
    chance = np.random.default_rng(2)
    held = 0
    for _ in range(1_000):
        more, less = chance.normal(60.0, 3.0), chance.normal(divisor, 1.0)
        found = times(Estimate(more, more - 5.88, more + 5.88), Estimate(less, less - 1.96, less + 1.96))
        held += found.low <= 60.0 / divisor <= found.high
    assert 0.92 < held / 1_000 < 0.99


def test_a_quotient_has_the_interval_of_fieller() -> None:
    found = times(Estimate(20, 16, 24), Estimate(10, 9, 11))
    assert found.value == 2
    for end in (found.low, found.high):  # there the difference is just not told from zero
        assert abs(20 - end * 10) == pytest.approx((4**2 + (end * 1) ** 2) ** 0.5)
    assert found.low > 16 / 11
    assert found.high < 24 / 9


@pytest.mark.parametrize("less", [Estimate(1, -1, 3), Estimate(0.5, 0, 1), Estimate(-1, -3, 1)])
def test_a_quotient_has_no_end_where_the_divisor_may_be_zero(less: Estimate) -> None:
    found = times(Estimate(20, 10, 30), less)
    assert found.high == inf
    assert 0 < found.low < inf


def test_a_quotient_of_what_nothing_is_known_of_begins_at_zero() -> None:
    assert times(Estimate(1, -2, 4), Estimate(2, 1, 3)).low == 0
    assert times(Estimate(1, -inf, inf), Estimate(2, 1, 3)) == Estimate(0.5, 0, inf)
    assert times(Estimate(1, 0.5, 1.5), Estimate(2, -inf, inf)) == Estimate(0.5, 0, inf)
    assert times(Estimate(5, 4, 6), Estimate(-2, -3, -1)) == Estimate(inf, 0, inf)
