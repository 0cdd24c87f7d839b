"""Two ranks that keep to a budget sample the same steps, however much their speeds differ."""

import pytest

from tests.distributed.budgets import BUDGETS, STEPS
from tests.distributed.comparing import Launch, scenario

pytestmark = pytest.mark.full

TOGETHER = ["replicas_under_a_budget", "shards_under_a_budget"]


@pytest.mark.parametrize("name", TOGETHER)
def test_both_sample_the_same_steps(two_ranks: Launch, name: str) -> None:
    first, second = scenario(two_ranks, name)
    assert first["sampled"] == second["sampled"]
    assert first["intervals"] == second["intervals"]


@pytest.mark.parametrize("name", TOGETHER)
def test_both_sample_more_rarely_than_configured(two_ranks: Launch, name: str) -> None:
    for found in scenario(two_ranks, name):
        assert found["intervals"][0] == 1
        assert found["intervals"][-1] > 1
        assert len(found["sampled"]) < STEPS


@pytest.mark.parametrize("name", [each.__name__ for each in BUDGETS])
def test_nothing_fails_and_training_is_left_alone(two_ranks: Launch, name: str) -> None:
    for found in filter(None, scenario(two_ranks, name)):
        assert found["faults"] == {}
        assert found["state"].keys() == found["bare"].keys()
        differing = [key for key, value in found["state"].items() if not value.equal(found["bare"][key])]
        assert not differing


def test_a_rank_whose_peer_is_not_watched_goes_on_as_configured(two_ranks: Launch) -> None:
    watched, other = scenario(two_ranks, "replicas_of_which_one_is_watched")
    assert watched["sampled"] == list(range(STEPS))
    assert not other
