"""Statistics that processes merge are those of the same training in one process."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nissa.distributed.reduce import ABSENT, FAILED
from nissa.kernels.moments import Column, decode
from tests.distributed.comparing import Launch, assert_same, scenario
from tests.distributed.scenarios import BY_RANKS, LAYOUT

HAVE_ALL_ALIKE = [each.__name__ for each in BY_RANKS[2] if each.__name__ != "fsdp_beside_whole_parameters"]
"""Scenarios after which all ranks have the same rows."""


def groups_of(found: Mapping[str, Any]) -> dict[str, list[int]]:
    return dict(zip(found["names"], found["groups"], strict=True))


def assert_true(found: Mapping[str, Any]) -> None:
    """Hold the rows of one rank against the gradients that the unsharded training has."""
    there = np.array(found["there"])
    merged, truth = found["rows"].numpy(), found["truth"].numpy()
    sharded = np.array([bool(groups) for groups in found["groups"]])
    assert (merged[~there & sharded, Column.COUNT] == ABSENT).all()
    assert_same(decode(merged[there], LAYOUT), decode(truth[there], LAYOUT))


@pytest.mark.parametrize("name", [each.__name__ for each in BY_RANKS[2] if each.__name__ != "fsdp_with_a_failure"])
def test_two_ranks_find_what_one_process_would(two_ranks: Launch, name: str) -> None:
    for found in scenario(two_ranks, name):
        assert_true(found)


@pytest.mark.parametrize("name", HAVE_ALL_ALIKE)
def test_all_ranks_find_the_same(two_ranks: Launch, name: str) -> None:
    first, second = scenario(two_ranks, name)
    assert first["rows"].equal(second["rows"])


@pytest.mark.parametrize("name", [each.__name__ for each in BY_RANKS[2]])
def test_gradients_are_left_as_they_were(two_ranks: Launch, name: str) -> None:
    for found in scenario(two_ranks, name):
        assert found["untouched"]
        assert found["plain"]


@pytest.mark.parametrize(
    ("name", "collectives"),
    [
        ("ddp", 0),
        ("fsdp", 2),
        ("fsdp_without_some_gradients", 2),
        ("fsdp_with_a_failure", 2),
        ("fsdp_beside_whole_parameters", 2),
        ("tensor_parallel", 2),
    ],
)
def test_there_are_two_collectives_per_group(two_ranks: Launch, name: str, collectives: int) -> None:
    assert [found["collectives"] for found in scenario(two_ranks, name)] == [collectives] * 2


def test_numbers_are_added_up_over_the_ranks_that_hold_parts(two_ranks: Launch) -> None:
    for name in ("fsdp", "fsdp_without_some_gradients", "fsdp_beside_whole_parameters", "tensor_parallel"):
        for found in scenario(two_ranks, name):
            expected = [[2.0, 2.0] if groups else [0.0, 1.0] for groups in found["groups"]]
            assert found["sums"].tolist() == expected


def test_a_replica_is_whole_on_every_rank(two_ranks: Launch) -> None:
    for found in scenario(two_ranks, "ddp"):
        assert found["replicas"] == 2
        assert found["groups"] == [[]] * 6
        assert found["first"] == [True] * 6


def test_shards_may_be_uneven_and_empty(two_ranks: Launch) -> None:
    first, second = scenario(two_ranks, "fsdp")
    assert first["names"] == ("scale", "unused", "up.weight", "up.bias", "down.weight", "down.bias")
    assert first["sizes"] == [1, None, 24, 4, 21, 3]
    assert second["sizes"] == [0, None, 18, 3, 14, 2]
    assert (first["first"], second["first"]) == ([True] * 6, [False] * 6)


def test_a_gradient_that_one_rank_lacks_counts_no_elements_of_it(two_ranks: Launch) -> None:
    first, second = scenario(two_ranks, "fsdp_without_some_gradients")
    assert (first["sizes"][2], second["sizes"][4]) == (None, None)
    assert first["groups"] == second["groups"] == [[2]] * 6
    assert first["rows"][:, Column.COUNT].tolist() == [1, ABSENT, 18, 7, 21, 5]


def test_what_one_rank_failed_to_measure_is_known_to_all(two_ranks: Launch) -> None:
    for found in scenario(two_ranks, "fsdp_with_a_failure"):
        assert found["rows"][:, Column.COUNT].tolist() == [FAILED] * 6


def test_only_what_is_sharded_is_merged(two_ranks: Launch) -> None:
    first, second = scenario(two_ranks, "fsdp_beside_whole_parameters")
    assert groups_of(first) == groups_of(second)
    assert [name for name, groups in groups_of(first).items() if not groups] == ["scale", "unused", "up.bias"]
    own = first["names"].index("up.bias")
    assert not first["rows"][own].equal(second["rows"][own])
    assert first["rows"][first["names"].index("unused"), Column.COUNT] == ABSENT


def test_the_gradients_of_norms_are_reduced_together(two_ranks: Launch) -> None:
    for found in scenario(two_ranks, "tensor_parallel"):
        assert found["reductions"] == 1
        sharded = [name for name, groups in groups_of(found).items() if groups]
        assert sharded == ["up.weight", "up.bias", "down.weight"]


def test_each_kind_of_reduction_is_one_of_its_own(two_ranks: Launch) -> None:
    for found in scenario(two_ranks, "placements_that_differ"):
        assert found["reductions"] == 3  # a sum, an average, a maximum


@pytest.mark.full
@pytest.mark.parametrize("name", [each.__name__ for each in BY_RANKS[4]])
def test_four_ranks_find_what_one_process_would(four_ranks: Launch, name: str) -> None:
    found = scenario(four_ranks, name)
    for each in found:
        assert_true(each)
        assert each["untouched"]
        assert each["rows"].equal(found[0]["rows"])


@pytest.mark.full
def test_replicas_of_shards_are_merged_within_a_replica(four_ranks: Launch) -> None:
    found = scenario(four_ranks, "hsdp")
    assert [each["groups"] for each in found] == [[[2]] * 6] * 4
    assert [each["collectives"] for each in found] == [2] * 4
    assert [each["first"][0] for each in found] == [True, False, False, False]


@pytest.mark.full
def test_shards_of_shards_are_merged_over_one_group_after_the_other(four_ranks: Launch) -> None:
    for found in scenario(four_ranks, "fsdp_of_tensor_parallel"):
        assert found["collectives"] == 4
        assert groups_of(found)["up.weight"] == [2, 2]
        assert groups_of(found)["after.weight"] == [2]
        assert found["sums"].tolist() == [[float(2 ** len(groups))] * 2 for groups in found["groups"]]
