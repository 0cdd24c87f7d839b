"""What a recording says about a run."""

from pathlib import Path

import numpy as np
import pytest

from nissa.events import Stage
from nissa.recordings import read
from nissa.report.clock import Clock
from nissa.report.run_summary import RunSummary, duration
from nissa.report.seed_timelines import GateMark
from nissa.report.series_keys import SeriesKey, SeriesNames
from tests import otlp
from tests.recorded import Recorded, at


def test_a_life_is_told_from_its_trace(facts: RunSummary) -> None:
    kept, culled = facts.timelines
    assert (kept.seed_id, kept.blueprint, kept.slot, kept.series_key.env) == ("seed0", "conv", "r0c0", "0")
    assert (kept.outcome, kept.improvement, kept.reason, kept.epochs) == ("fossilized", 0.025, "", 4)
    assert (culled.outcome, culled.improvement, culled.reason) == ("culled", -0.01, "no gain")
    assert [stage.stage for stage in kept.stages] == [
        Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.FOSSILIZED,
    ]  # fmt: skip
    assert (kept.stages[1].start, kept.stages[1].end) == (at(6), at(30))


def test_gates_are_told_with_their_checks(facts: RunSummary) -> None:
    assert [(gate.name, gate.passed, gate.failed) for gate in facts.timelines[0].gates] == [
        ("G1", True, ()),
        ("G2", False, ("gain_0.10%",)),
        ("G2", True, ()),
    ]


def test_gates_are_told_from_spans_where_there_are_no_logs(tmp_path: Path) -> None:
    event = {
        "name": "nissa.seed.gate",
        "timeUnixNano": str(at(2)),
        "attributes": otlp.attributes({"nissa.gate.name": "G9", "nissa.gate.passed": True}),
    }
    about = {"nissa.seed.id": "s"}
    spans = [
        otlp.span("seed", at(1), at(3), about, trace="t", own="r"),
        otlp.span("seed.training", at(1), at(3), about, trace="t", own="c", parent="r", events=[event]),
    ]
    (life,) = RunSummary(read(otlp.write(tmp_path / "r", traces=[otlp.spans(*spans)])), "r").timelines
    assert life.gates == (GateMark("G9", at(2), passed=True, score=None, failed=(), message=""),)


def test_a_killed_seed_is_open_in_the_stage_that_it_was_in(killed: RunSummary) -> None:
    assert len(killed.timelines) == 2
    for life in killed.timelines:
        assert (life.outcome, life.end) == ("open", None)
        assert [(stage.stage, stage.end) for stage in life.stages] == [
            (Stage.GERMINATED, at(6)),
            (Stage.TRAINING, at(30)),
            (Stage.BLENDING, None),
        ]


def test_a_resumed_seed_is_one_life_with_the_outcome_of_its_last_process(tmp_path: Path) -> None:
    about = {"nissa.seed.id": "s"}
    spans = [
        otlp.span("seed", at(1), at(3), about | {"nissa.seed.outcome": "interrupted"}, trace="t", own="first"),
        otlp.span(
            "seed", at(5), at(9), about | {"nissa.seed.outcome": "culled"}, trace="t", own="second", parent="first"
        ),
    ]
    (life,) = RunSummary(read(otlp.write(tmp_path / "r", traces=[otlp.spans(*spans)])), "r").timelines
    assert (life.outcome, life.attempts, life.start, life.end) == ("culled", 2, at(1), at(9))


def test_findings_last_until_they_are_cleared(facts: RunSummary, killed: RunSummary) -> None:
    flag = facts.findings[0]
    assert (flag.name, flag.sentence, flag.advice, flag.step) == ("loss spike", "Loss spike.", "Look at it.", 20)
    assert (flag.time, flag.until) == (at(20), at(25))
    assert len(killed.findings) == 2


def test_how_a_run_ended(facts: RunSummary, killed: RunSummary) -> None:
    assert facts.ending.word == "completed"
    assert killed.ending.word == "open"


def test_the_step_at_a_time_is_the_latest_one(facts: RunSummary) -> None:
    place = SeriesKey(env="0")
    times = np.array([at(0) - 5, at(3), at(3) + 1, at(59) + 10**12], dtype=np.int64)
    assert facts.clock.steps(place, times).tolist() == [0, 3, 3, 59]


def test_where_no_step_was_recorded_none_is_made_up(tmp_path: Path) -> None:
    clock = Clock(read(otlp.write(tmp_path / "r", metrics=[otlp.metrics(otlp.gauge("nissa.loss", [(at(1), 1.0)]))])))
    assert not clock.known
    assert np.isnan(clock.step(SeriesKey(), at(1)))


def test_between_points_that_were_thinned_steps_are_evenly_spaced(tmp_path: Path) -> None:
    line = otlp.metrics(otlp.gauge("nissa.step", [(at(0), 0.0), (at(100), 1000.0)]))
    assert Clock(read(otlp.write(tmp_path / "r", metrics=[line]))).step(SeriesKey(), at(50)) == 500


def test_places_are_named_by_what_differs() -> None:
    alone = SeriesNames([SeriesKey(env="0", rank=0)])
    assert (alone.name(SeriesKey(env="0", rank=0)), alone.groups) == ("", [])
    several = SeriesNames([SeriesKey("0", "actor", 0), SeriesKey("10", "critic", 1), SeriesKey("2", "critic", 1)])
    assert several.groups == ["environment 0", "environment 2", "environment 10"]
    assert several.name(SeriesKey("2", "critic", 1)) == "environment 2 · critic · rank 1"


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.25, "4.2 s"), (75, "1 min 15 s"), (7_384, "2 h 3 min"), (93_600, "1 d 2 h")]
)
def test_durations_are_told_in_two_units(seconds: float, said: str) -> None:
    assert duration(round(seconds * 1e9)) == said


def test_a_run_whose_names_are_hostile_is_a_run_like_any_other(tmp_path: Path) -> None:
    found = RunSummary(read(Recorded(mark="<x>").write(tmp_path / "r")), "r")
    assert found.run_id == "run<x>"
    assert found.timelines[0].blueprint == "conv<x>"
