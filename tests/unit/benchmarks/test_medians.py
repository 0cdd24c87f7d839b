"""A median and its interval."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.medians import median
from benchmarks.steps.statistics import Estimate


@pytest.mark.parametrize(("values", "middle"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5)])
def test_it_is_the_one_in_the_middle(values: list[float], middle: float) -> None:
    found = median(values)
    assert found.value == middle
    assert 1.0 <= found.low <= middle <= found.high <= max(values)


def test_rounds_without_noise_have_no_width() -> None:
    assert median([0.7] * 12) == Estimate(0.7, 0.7, 0.7)
    assert median([0.7]) == Estimate(0.7, 0.7, 0.7)


def test_its_interval_is_the_one_that_can_be_worked_out() -> None:
    # A resample of 1..11 has a median of at most k where six draws or more are: with the binomial probability of
    # 0.7 % for k = 2 and 5.1 % for k = 3, so that the lower end is 3; the upper one lies as far from the other side.
    assert median([float(number) for number in range(1, 12)]) == Estimate(6.0, 3.0, 9.0)


def test_a_round_that_was_disturbed_moves_nothing() -> None:
    quiet = [1.0 + 0.01 * number for number in range(11)]
    assert median([*quiet[:-1], 1000.0]) == median(quiet)


def test_more_rounds_make_it_narrower() -> None:
    chance = np.random.default_rng(0)
    found = [median(chance.normal(size=count).tolist()) for count in (10, 100, 1000)]
    assert all(after.high - after.low < before.high - before.low for before, after in pairwise(found))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    chance = np.random.default_rng(0)
    found = [median(chance.lognormal(size=40).tolist()) for _ in range(300)]
    assert 0.92 < sum(each.low <= 1.0 <= each.high for each in found) / len(found) < 0.98
