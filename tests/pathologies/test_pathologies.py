import csv

import pytest

from tests.pathologies.kinds import KINDS, Kind
from tests.pathologies.running import train
from tests.pathologies.scoring import SCORING_SEEDS, TUNING_SEEDS, of_kind, random_seed
from tests.pathologies.whole import RUNS

MISSED = {("rare_classes", 7)}
"""Runs of the scoring half in which nothing is said, as ``benchmarks/results/pathologies.csv`` states."""


def _runs() -> list[object]:
    return [
        pytest.param(kind, number, id=f"{kind.name}-{number}", marks=_marks(kind, number))
        for kind in KINDS
        for number in (*TUNING_SEEDS, *SCORING_SEEDS)
    ]


def _marks(kind: Kind, number: int) -> list[pytest.MarkDecorator]:
    marks = [] if number == TUNING_SEEDS[0] else [pytest.mark.full]
    if (kind.name, number) in MISSED:
        # Not strict: another machine rounds differently, and it is a close miss.
        marks.append(pytest.mark.xfail(reason="missed when it was scored", strict=False))
    return marks


@pytest.mark.parametrize(("kind", "number"), _runs())
def test_what_is_wrong_is_found(kind: Kind, number: int) -> None:
    score = of_kind(kind, number, train(kind.make, random_seed(kind.name, number)))
    assert score.noticed is not None


def test_of_the_runs_that_were_scored_at_least_95_percent_are_found() -> None:
    with RUNS.open(newline="") as file:
        runs = [run for run in csv.DictReader(file) if run["half"] == "scoring" and run["rule"]]
    assert {run["run"] for run in runs} == {kind.name for kind in KINDS}
    assert {(run["run"], int(run["number"])) for run in runs if not run["steps_until_noticed"]} == MISSED
    assert len(MISSED) <= 0.05 * len(runs)


def test_there_are_kinds_enough_and_their_names_differ() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 15
