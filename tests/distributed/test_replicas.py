"""Replicas that diverge are found at the next comparison, and programs that resemble them raise nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from nissa.recordings.values import attributes
from scripts.stack_build import locked
from tests.distributed.launching import run_ranks
from tests.distributed.replicas import BROKEN
from tests.support import points, records

Found = dict[str, Any]
DIVERGED, SAME_DATA = "replica_divergence", "same_data_on_ranks"
ALL = ["0.weight", "0.bias", "2.weight", "2.bias"]
FUNCTIONS = {2: "play_two", 3: "play_three", 4: "play_four"}


def _played(launches: Path, ranks: int) -> list[Found]:
    folder = launches / f"replicas{ranks}"
    with locked(launches / f"replicas-lock{ranks}"):
        if not folder.exists():
            folder.mkdir()
            run_ranks("tests.distributed.replicas", FUNCTIONS[ranks], folder, ranks=ranks)
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="session")
def two(launches: Path) -> list[Found]:
    """Return what each of two ranks found, by scenario."""
    return _played(launches, 2)


@pytest.fixture(scope="session")
def three(launches: Path) -> list[Found]:
    """Return the same of three ranks."""
    return _played(launches, 3)


@pytest.fixture(scope="session")
def four(launches: Path) -> list[Found]:
    """Return the same of four ranks."""
    return _played(launches, 4)


def flags(found: list[Found], scenario: str) -> list[set[str]]:
    return [{*rank[scenario]["flags"]} & {DIVERGED, SAME_DATA} for rank in found]


def explained(found: list[Found], scenario: str, flag: str = DIVERGED) -> Found:
    """Return the first finding, which all ranks have alike."""
    first, *others = [rank[scenario]["flags"][flag] for rank in found]
    for other in others:
        assert {name: other[name] for name in ("message", "evidence", "advice", "step")} == {
            name: first[name] for name in ("message", "evidence", "advice", "step")
        }
    finding: Found = first
    return finding


def outcomes(found: Found, scenario: str) -> list[str]:
    return [outcome for _, outcome in found[scenario]["outcomes"]]


@pytest.mark.parametrize(
    ("scenario", "cause", "layers", "step", "advice"),
    [
        ("module_called_without_its_wrapper", "unwrapped", ALL, 2, "Call the wrapper"),
        ("wrapper_forgotten", "unwrapped", ALL, 2, "Call the wrapper"),
        ("clipping_on_the_last_rank", "clipping", ALL, BROKEN + 1, "Clip gradients on every rank"),
        ("other_learning_rate", "learning_rate", ALL, 2, "Set the same learning rate"),
        ("other_weight_decay", "optimizer_settings", ALL, 2, "same settings"),
        ("skipped_step", "skipped_step", ALL, BROKEN + 1, "equally often"),
        ("flipped_bit", "corruption", ["2.weight"], BROKEN + 1, "memory of the device"),
        ("other_initial_weights", "initial_weights", ALL, 0, "before the model is wrapped"),
        ("gradients_changed_on_one_rank", "unreduced_gradients", ALL, 2, "changes gradients on some ranks"),
        ("a_hand_made_group", "corruption", ["0.bias"], BROKEN + 1, "memory of the device"),
        ("composable_with_a_flipped_bit", "corruption", ["2.weight"], BROKEN + 1, "memory of the device"),
        ("unequal_numbers_of_updates", "skipped_step", ALL, BROKEN + 1, "Join"),
        ("tensor_parallel_with_clipping_on_one_rank", "clipping", ["norm.weight", "norm.bias"], BROKEN + 1, "Clip"),
    ],
)
def test_a_fault_is_found_at_the_next_comparison_and_named(
    two: list[Found], scenario: str, cause: str, layers: list[str], step: int, advice: str
) -> None:
    finding = explained(two, scenario)
    assert f"cause={cause}" in finding["evidence"]
    assert finding["layers"] == layers
    assert finding["value"] == len(layers)
    assert finding["step"] == finding["first_step"] == step
    assert advice in finding["advice"]
    assert "ranks 0 and 1" in finding["message"]
    assert flags(two, scenario) == [{DIVERGED}, {DIVERGED}]


def test_evidence_has_the_numbers_of_each_rank(two: list[Found]) -> None:
    assert "learning_rates=0.01 (rank 0), 0.02 (rank 1)" in explained(two, "other_learning_rate")["evidence"]
    assert "0.weight_decay=0.01 (rank 0), 0.5 (rank 1)" in explained(two, "other_weight_decay")["evidence"]
    assert "forward_passes=7 (rank 0), 8 (rank 1)" in explained(two, "skipped_step")["evidence"]
    assert "last_equal_step=4" in explained(two, "flipped_bit")["evidence"]
    assert "last_equal_step=none" in explained(two, "other_initial_weights")["evidence"]


@pytest.mark.parametrize(
    "scenario",
    [
        "healthy",
        "composable",
        "composable_with_meshes",
        "batch_norm",
        "parameters_of_a_ranks_own",
        "accumulation_without_sync",
        "unequal_numbers_of_batches",
        "sharded",
        "tensor_parallel",
        "stages_of_a_pipeline",
        "experts_of_a_ranks_own",
        "unrelated_models",
        "local_sgd",
        "local_sgd_by_the_setting",
        "excluded_layers",
        "one_batch_learned_on_purpose",
        "ranks_that_sample_other_steps",
        "a_rank_without_nissa",
        "a_group_that_ends",
    ],
)
def test_a_legitimate_program_raises_nothing(two: list[Found], scenario: str) -> None:
    assert flags(two, scenario) == [set(), set()]
    assert [rank[scenario]["faults"] for rank in two] == [{}, {}]
    assert not any("explained" in outcomes(rank, scenario) for rank in two)


def test_replicas_are_compared(two: list[Found]) -> None:
    for scenario in (
        "healthy",
        "composable",
        "composable_with_meshes",
        "batch_norm",
        "parameters_of_a_ranks_own",
        "accumulation_without_sync",
        "tensor_parallel",
    ):
        assert outcomes(two[0], scenario).count("equal") == 6, scenario
    assert "equal" in outcomes(two[0], "unequal_numbers_of_batches")
    assert "equal" in outcomes(two[0], "excluded_layers")


def test_what_is_not_replicated_is_not_compared(two: list[Found]) -> None:
    for scenario in ("sharded", "local_sgd", "local_sgd_by_the_setting", "unrelated_models"):
        assert "equal" not in outcomes(two[0], scenario), scenario
        assert "different" not in outcomes(two[0], scenario), scenario


def test_steps_that_a_rank_does_not_report_are_counted(two: list[Found]) -> None:
    sampled = two[0]["ranks_that_sample_other_steps"]["outcomes"]
    assert [0, "equal"] in sampled
    assert [6, "equal"] in sampled
    assert {step for step, outcome in sampled if outcome == "incomplete"} >= {2, 4, 8}
    alone = outcomes(two[0], "a_rank_without_nissa")
    assert alone
    assert {*alone} == {"incomplete"}


def test_no_key_is_left_in_the_store(two: list[Found]) -> None:
    scenarios = list(two[0])
    for scenario in scenarios[: scenarios.index("a_rank_without_nissa")]:
        assert [rank[scenario]["keys"] for rank in two] == [0, 0], scenario


def test_findings_and_numbers_reach_the_files(two: list[Found], launches: Path) -> None:
    assert two
    files = [*(launches / "replicas2" / "nissa-runs").glob("*/logs-rank*.jsonl")]
    told = [attributes(each) for file in files for each in records(file.parent, file.name)]
    flipped = [
        each
        for each in told
        if each.get("nissa.red_flag.name") == DIVERGED and each.get("nissa.finding.layers") == ["2.weight"]
    ]
    assert flipped
    for each in flipped:
        assert each["nissa.finding.layer_count"] == each["nissa.finding.value"] == 1
        assert each["nissa.finding.first_step"] == BROKEN + 1
        assert "cause=corruption" in each["nissa.finding.evidence"]
        assert "memory of the device" in each["nissa.finding.advice"]
    numbers = [point for file in files for point in points(file.parent, name=file.name.replace("logs", "metrics"))]
    assert {each.metric for each in numbers} >= {
        "nissa.step.skew",
        "nissa.replica.comparisons",
        "nissa.replica.mismatch",
    }


def test_the_spread_of_arrival_is_measured(two: list[Found]) -> None:
    skews = two[0]["healthy"]["skews"]
    assert len(skews) >= 6
    assert all(0 <= each < 60 for each in skews)
    assert two[1]["healthy"]["skews"] == []


def test_ranks_that_read_the_same_data_are_found_in_the_first_epoch(two: list[Found]) -> None:
    finding = explained(two, "same_data", SAME_DATA)
    assert "Ranks 0 and 1 read the same batches at steps 0, 1, 2, 4" in finding["message"]
    assert "DistributedSampler" in finding["advice"]
    assert flags(two, "same_data") == [{SAME_DATA}, {SAME_DATA}]


def test_three_ranks_name_those_in_the_minority(three: list[Found]) -> None:
    assert "on rank 2 differ from those on ranks 0 and 1" in explained(three, "clipping_on_the_last_rank")["message"]
    flipped = explained(three, "flipped_bit")
    assert "on rank 1 differ from those on ranks 0 and 2" in flipped["message"]
    assert "ranks=1" in flipped["evidence"]
    assert flipped["layers"] == ["2.weight"]
    assert "Ranks 0 and 2 read the same batches" in explained(three, "same_data", SAME_DATA)["message"]
    assert flags(three, "healthy") == [set(), set(), set()]


@pytest.mark.full
def test_replicas_of_shards_are_compared_over_the_replicated_dimension(four: list[Found]) -> None:
    assert flags(four, "hybrid") == [set()] * 4
    assert [outcomes(rank, "hybrid").count("equal") for rank in four] == [6, 6, 0, 0]
    flipped = "hybrid_with_a_flipped_bit"
    assert flags(four, flipped) == [set(), {DIVERGED}, set(), {DIVERGED}]
    finding = explained([four[1], four[3]], flipped)
    assert "ranks 1 and 3" in finding["message"]
    assert finding["layers"] == ["2.weight"]
