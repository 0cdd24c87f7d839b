"""From pairs of blocks to lines."""

import pytest

from benchmarks.steps.rows import counted, timing

PAIR = {
    "turn": 0,
    "steps": 10,
    "bare": 3.0,
    "watched": 3.3,
    "bare_busy": 6.0,
    "watched_busy": 6.3,
    "inside": 0.03,
    "background": 0.06,
}


def test_time_is_told_per_step_and_per_sample() -> None:
    row = timing([PAIR, PAIR | {"turn": 1}], every=10)
    assert float(row["bare_ms"]) == 300
    assert float(row["ratio"]) == pytest.approx(0.1)
    assert float(row["busy"]) == pytest.approx(0.05)
    assert float(row["sample_ms"]) == pytest.approx(300)
    assert float(row["sample_low"]) == pytest.approx(300)


def test_turns_that_differ_widen_the_interval() -> None:
    slow = PAIR | {"watched": 3.6}
    alike = timing([PAIR, slow, PAIR, slow], every=1)
    apart = timing([PAIR, PAIR, slow | {"turn": 1}, slow | {"turn": 1}], every=1)
    assert float(apart["ratio_high"]) > float(
        timing([PAIR, slow, PAIR | {"turn": 1}, slow | {"turn": 1}], 1)["ratio_high"]
    )
    assert alike["ratio_high"] == "inf"


def test_counts_are_those_added() -> None:
    found = counted({"reads": 740.0, "operations": 9_000.0}, {"reads": 0.0, "operations": 8_000.0})
    assert found == {"reads": 740, "operations": 1_000}
