"""From pairs of blocks to lines."""

import pytest

from benchmarks.steps.rows import counted, live, own, timing

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
    row = timing([PAIR, PAIR | {"turn": 1}], every=10, apart=True)
    assert float(row["bare_ms"]) == 300
    assert float(row["ratio"]) == pytest.approx(0.1)
    assert float(row["busy"]) == pytest.approx(0.05)
    assert float(row["own"]) == pytest.approx(0.03)
    assert float(row["sample_ms"]) == pytest.approx(300)
    assert float(row["sample_low"]) == pytest.approx(300)


def test_turns_that_differ_widen_the_interval() -> None:
    slow = PAIR | {"watched": 3.6}
    alike = timing([PAIR, slow, PAIR, slow], every=1, apart=False)
    apart = timing([PAIR, PAIR, slow | {"turn": 1}, slow | {"turn": 1}], every=1, apart=False)
    assert float(apart["ratio_high"]) > float(
        timing([PAIR, slow, PAIR | {"turn": 1}, slow | {"turn": 1}], 1, apart=False)["ratio_high"]
    )
    assert alike["ratio_high"] == "inf"


def test_what_cannot_be_told_apart_is_absent() -> None:
    assert "own" not in timing([PAIR], every=1, apart=False)


def test_own_time_is_that_of_all_threads() -> None:
    assert own([PAIR, {**PAIR, "background": 0.0}]).value == pytest.approx(0.02)


def test_counts_are_those_added() -> None:
    found = counted({"reads": 740.0, "operations": 9_000.0}, {"reads": 0.0, "operations": 8_000.0})
    assert found == {"reads": 740, "operations": 1_000}


def test_a_run_tells_shares_of_watched_time() -> None:
    row = live([0.09, 0.1], [PAIR, PAIR])
    assert float(row["told"]) == pytest.approx(0.095)
    assert float(row["took"]) == pytest.approx(0.1 / 1.1, rel=1e-4)
    assert float(row["factor"]) == pytest.approx(0.095 / 0.1 * 1.1, rel=1e-2)
