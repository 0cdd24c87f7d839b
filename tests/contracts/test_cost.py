"""Contracts cost at most 1 % of a step of 50 ms, as measured by ``python -m benchmarks.contracts``."""

import csv

from benchmarks.contracts import FIELDS, GOAL_PERCENT, PHASES
from benchmarks.facts import RESULTS


def test_the_committed_result_is_below_the_goal() -> None:
    with (RESULTS / "contracts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == list(PHASES)
    assert tuple(rows[0]) == FIELDS
    for row in rows:
        assert float(row["share_percent_high"]) <= GOAL_PERCENT
        assert float(row["step_ms"]) >= 50
