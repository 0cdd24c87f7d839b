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


def test_a_quotient_takes_the_worst_ends() -> None:
    assert times(Estimate(20, 10, 30), Estimate(2, 1, 5)) == Estimate(10, 2, 30)


@pytest.mark.parametrize("less", [Estimate(1, -1, 3), Estimate(0.5, 0, 1)])
def test_a_quotient_has_no_end_where_the_divisor_may_be_zero(less: Estimate) -> None:
    assert times(Estimate(20, 10, 30), less).high == inf


def test_a_quotient_of_what_may_be_negative_begins_at_zero() -> None:
    assert times(Estimate(1, -2, 4), Estimate(2, 1, 4)).low == 0
