"""A run on two ranks tells what the same training in one process would, and leaves it alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nissa.gradients.health import assess
from nissa.hub.measurements import GradientsMeasured
from nissa.recordings.values import attributes
from nissa.testing import Point
from tests.distributed.comparing import Launch, assert_same, scenario
from tests.distributed.launching import RUN_ID
from tests.distributed.playing import STEPS, Seen
from tests.distributed.runs import FAILING, LIMIT, RUNS
from tests.support import lines, points

ALL = tuple(range(STEPS))
NAMES = {"scale", "up.weight", "up.bias", "down.weight", "down.bias"}

WHO_EXPORTS = {
    "replicas_of_which_one_exports": (0,),
    "replicas_that_all_export": (0, 1),
    "replicas_of_which_the_first_exports": (0,),
    "shards_on_every_other_step": (0,),
    "a_stage_per_rank": (0, 1),
    "shards_that_are_clipped": (0,),
}
FAIL = ["shards_of_which_one_fails", "shards_of_which_one_has_no_copy"]
SHARDED = ["shards_on_every_other_step", *FAIL, "shards_that_are_clipped", "shards_left_alone"]


def sampled(name: str) -> tuple[int, ...]:
    return ALL[::2] if name == "shards_on_every_other_step" else ALL


def assert_seen(told: GradientsMeasured, seen: Seen) -> None:
    """Hold a sample against what the user's own code saw of the same step."""
    assert told.names == seen.names
    assert_same(told.moments, seen.moments)
    assert told.weight_norms is not None
    assert told.update_ratios is not None
    np.testing.assert_allclose(told.weight_norms, seen.weight_norms, rtol=1e-9)
    np.testing.assert_allclose(told.update_ratios, seen.update_ratios, rtol=1e-6)


def exported(launches: Path, name: str, rank: int) -> list[Point]:
    """Return the points of gradient streams in the files of one rank."""
    found = points(launches / "ranks2" / "runs" / name / RUN_ID, name=f"metrics-rank{rank}.jsonl")
    return [point for point in found if "nissa.parameter.name" in point.attributes]


@pytest.mark.parametrize("name", [each.__name__ for each in RUNS])
def test_every_rank_records_its_steps(two_ranks: Launch, launches: Path, name: str) -> None:
    for rank, found in enumerate(scenario(two_ranks, name)):
        assert [each.step for each in found["steps"]] == list(ALL)
        assert tuple(each.step for each in found["steps"] if each.sampled) == sampled(name)
        folder = launches / "ranks2" / "runs" / name / RUN_ID
        told = points(folder, "nissa.step", f"metrics-rank{rank}.jsonl")
        assert [point.value for point in told] == list(ALL)


@pytest.mark.parametrize("name", [each.__name__ for each in RUNS if each.__name__ not in FAIL])
def test_nothing_fails_on_the_way(two_ranks: Launch, name: str) -> None:
    assert [found["faults"] for found in scenario(two_ranks, name)] == [{}, {}]


@pytest.mark.parametrize("name", list(WHO_EXPORTS))
def test_the_ranks_that_should_record_gradients_do(two_ranks: Launch, name: str) -> None:
    for rank, found in enumerate(scenario(two_ranks, name)):
        expected = sampled(name) if rank in WHO_EXPORTS[name] else ()
        assert tuple(each.step for each in found["gradients"]) == expected


@pytest.mark.parametrize("name", list(WHO_EXPORTS))
def test_files_hold_what_was_recorded(two_ranks: Launch, launches: Path, name: str) -> None:
    for rank, found in enumerate(scenario(two_ranks, name)):
        written = exported(launches, name, rank)
        assert bool(written) == (rank in WHO_EXPORTS[name])
        for metric in ("norm", "weight.norm"):
            told = {
                (parameter, each.time_unix_nano): norm
                for each in found["gradients"]
                for parameter, norm in zip(each.names, _norms(each, metric), strict=True)
            }
            full = "nissa.weight.norm" if metric == "weight.norm" else "nissa.gradient.norm"
            kept = {(p.attributes["nissa.parameter.name"], p.time): p.value for p in written if p.metric == full}
            assert kept == told


def _norms(told: GradientsMeasured, metric: str) -> "list[float]":
    values = told.weight_norms if metric == "weight.norm" else told.moments.norm
    assert values is not None
    norms: list[float] = values.tolist()
    return norms


def test_files_say_whose_they_are(two_ranks: Launch, launches: Path) -> None:
    scenario(two_ranks, "replicas_that_all_export")
    folder = launches / "ranks2" / "runs" / "replicas_that_all_export" / RUN_ID
    assert len(list(folder.iterdir())) == 6
    for rank in range(2):
        for line in lines(folder / f"metrics-rank{rank}.jsonl"):
            (resource,) = (attributes(each["resource"]) for each in line["resourceMetrics"])
            identity = {key: resource[key] for key in ("dl.rank", "dl.world_size", "nissa.run.id")}
            assert identity == {"dl.rank": rank, "dl.world_size": 2, "nissa.run.id": RUN_ID}


@pytest.mark.parametrize("name", [each.__name__ for each in RUNS if each.__name__ not in FAIL])
def test_statistics_are_those_of_the_reduced_gradients(two_ranks: Launch, name: str) -> None:
    for found in scenario(two_ranks, name):
        for told in found["gradients"]:
            assert_seen(told, found["seen"][told.step])


@pytest.mark.parametrize("name", [each.__name__ for each in RUNS if each.__name__ not in FAIL])
def test_statistics_are_those_of_one_process(two_ranks: Launch, name: str) -> None:
    first = scenario(two_ranks, name)[0]
    assert {parameter for told in first["gradients"] for parameter in told.names} == (
        {"stage0.weight", "stage0.bias"} if name == "a_stage_per_rank" else NAMES
    )
    for told in first["gradients"]:
        assert_seen(told, first["truth"][told.step])


@pytest.mark.parametrize(
    "name", [each.__name__ for each in RUNS if each.__name__ not in ("a_stage_per_rank", "replicas_that_all_export")]
)
def test_all_ranks_conclude_the_same(two_ranks: Launch, name: str) -> None:
    first, second = scenario(two_ranks, name)
    last: Seen = first["seen"][-1]
    expected = assess(last.names, last.moments)
    assert first["health"] == second["health"]
    assert first["health"].vanishing == expected.vanishing != ()
    assert first["health"].score == expected.score
    assert first["health"].global_norm == pytest.approx(expected.global_norm, rel=1e-9)


@pytest.mark.parametrize("name", SHARDED)
def test_only_sampled_steps_communicate(two_ranks: Launch, name: str) -> None:
    expected = [2 if step in sampled(name) else 0 for step in ALL]
    assert [found["collectives"] for found in scenario(two_ranks, name)] == [expected] * 2


@pytest.mark.parametrize("name", ["replicas_left_alone", "a_stage_per_rank"])
def test_what_is_whole_on_a_rank_communicates_nothing(two_ranks: Launch, name: str) -> None:
    assert [found["collectives"] for found in scenario(two_ranks, name)] == [[0] * STEPS] * 2


@pytest.mark.parametrize("name", FAIL)
def test_a_step_that_one_rank_cannot_measure_is_absent(two_ranks: Launch, launches: Path, name: str) -> None:
    first, second = scenario(two_ranks, name)
    assert (first["faults"], second["faults"]) == ({}, {"gradient capture": 1})
    told = {each.step: each for each in first["gradients"] if each.names}
    assert sorted(told) == [step for step in ALL if step != FAILING]
    for step, each in told.items():
        assert_seen(each, first["truth"][step])
    assert not [each for each in second["gradients"] if each.names]
    times = {each.step: each.time_unix_nano for each in first["steps"]}
    norms = [p.time for p in exported(launches, name, 0) if p.metric == "nissa.gradient.norm"]
    assert set(norms) == {times[step] for step in told}


def test_a_stage_is_told_by_its_own_rank(two_ranks: Launch) -> None:
    for rank, found in enumerate(scenario(two_ranks, "a_stage_per_rank")):
        assert {each.names for each in found["gradients"]} == {(f"stage{rank}.weight", f"stage{rank}.bias")}
        assert [each.moments.count.tolist() for each in found["gradients"]] == [[6 * (3 + rank), 3 + rank]] * STEPS


def test_the_norm_before_clipping_is_that_of_one_process(two_ranks: Launch) -> None:
    for found in scenario(two_ranks, "shards_that_are_clipped"):
        assert min(found["norms"]) > 2 * LIMIT
        np.testing.assert_allclose([each.clip_norm for each in found["steps"]], found["norms"], rtol=1e-9)
        factors = [LIMIT / (norm + 1e-6) for norm in found["norms"]]
        np.testing.assert_allclose([each.clip_factor for each in found["steps"]], factors, rtol=1e-9)


@pytest.mark.parametrize(
    "name",
    ["replicas_left_alone", "shards_left_alone", "shards_that_are_clipped", *FAIL],
)
def test_training_is_the_same_to_the_last_bit(two_ranks: Launch, name: str) -> None:
    for found in scenario(two_ranks, name):
        assert_equal(found["state"], found["bare"])
        assert len(found["state"]) == 6 + 3 * 5 + 1  # parameters, what AdamW keeps of those that it used, the generator


def assert_equal(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    assert left.keys() == right.keys()
    differing = [name for name, value in left.items() if not value.equal(right[name])]
    assert not differing


def test_trainings_moved(two_ranks: Launch) -> None:
    """Else two that are the same say nothing."""
    for found in scenario(two_ranks, "shards_left_alone"):
        assert all((each.update_ratios > 0).all() for each in found["seen"])
