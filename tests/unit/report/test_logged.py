"""Throughput in the report."""

import numpy as np
import pytest

from nissa.recordings import Process, Stream
from nissa.report.logged import _rates, _step_rates

SECOND = 1_000_000_000


def rates(seconds: list[float], totals: list[float]) -> list[float]:
    times = np.array([round(second * SECOND) for second in seconds], dtype=np.int64)
    found: list[float] = _rates(Stream("nissa.items", {}, Process({}), times, np.array(totals))).values.tolist()
    return found


def test_rates_are_those_between_exports() -> None:
    assert rates([0, 15, 30], [0, 150, 450]) == [10.0, 20.0]


def test_the_export_at_the_end_joins_the_one_before() -> None:
    assert rates([0, 10, 20, 21], [0, 100, 200, 310]) == [10.0, 210 / 11]


def steps_of(seconds: list[float], numbers: list[float]) -> list[float]:
    times = np.array([round(second * SECOND) for second in seconds], dtype=np.int64)
    found: list[float] = _step_rates(Stream("nissa.step", {}, Process({}), times, np.array(numbers))).values.tolist()
    return found


def test_steps_per_second_are_those_of_wall_time() -> None:
    regular = steps_of([number / 10 for number in range(101)], list(range(101)))
    assert regular == pytest.approx([10.0] * len(regular), rel=0.05)
    assert len(regular) == 25
    assert steps_of([0, 1, 2, 3, 13, 14, 15, 16], [0, 10, 20, 30, 40, 50, 60, 70]) == pytest.approx(
        [10, 40 / 13], rel=0.4
    )


def test_steps_that_are_repeated_after_a_resumption_have_no_rate() -> None:
    assert all(rate >= 0 for rate in steps_of([0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 0, 1, 2, 3, 4]))


def test_one_step_has_no_rate() -> None:
    assert steps_of([1], [0]) == []
