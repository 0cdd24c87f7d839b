"""Throughput in the report."""

import numpy as np

from nissa.recordings import Process, Stream
from nissa.report.logged import _rates

SECOND = 1_000_000_000


def rates(seconds: list[float], totals: list[float]) -> list[float]:
    times = np.array([round(second * SECOND) for second in seconds], dtype=np.int64)
    found: list[float] = _rates(Stream("nissa.items", {}, Process({}), times, np.array(totals))).values.tolist()
    return found


def test_rates_are_those_between_exports() -> None:
    assert rates([0, 15, 30], [0, 150, 450]) == [10.0, 20.0]


def test_the_export_at_the_end_joins_the_one_before() -> None:
    assert rates([0, 10, 20, 21], [0, 100, 200, 310]) == [10.0, 210 / 11]
