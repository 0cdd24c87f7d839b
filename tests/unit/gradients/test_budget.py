"""How rarely gradients have to be measured for a budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.gradients.overhead import CostHistory, StepCosts
from nissa.gradients.sampling import MOST, choose

COSTS = st.builds(
    StepCosts, step=st.floats(1e3, 1e10), plain=st.floats(0, 1e7), sample=st.floats(0, 1e10, allow_subnormal=False)
)
BUDGETS = st.floats(1e-4, 1)


def test_the_share_of_a_step_is_what_is_ours_of_all() -> None:
    assert StepCosts(step=80, plain=10, sample=100).share(10) == pytest.approx(0.2)


def test_so_rarely_that_it_fits_and_no_rarer() -> None:
    costs = StepCosts(step=10e6, plain=0, sample=2e6)  # 20 % of a bare step on each
    assert [choose(costs, budget, 1, 0) for budget in (1, 0.1, 0.02)] == [0, 2, 4]
    assert costs.share(1 << 4) < 0.02


def test_longer_intervals_need_less_thinning() -> None:
    costs = StepCosts(step=10e6, plain=0, sample=2e6)
    assert [choose(costs, 0.02, every, 0) for every in (1, 10, 100)] == [4, 1, 0]


def test_it_goes_back_when_steps_are_longer() -> None:
    assert choose(StepCosts(step=1e9, plain=0, sample=2e6), 0.02, 1, 4) == 0


def test_what_no_thinning_helps_is_thinned_most() -> None:
    assert choose(StepCosts(step=1e6, plain=1e6, sample=1e6), 0.02, 1, 0) == MOST


@given(costs=COSTS, budget=BUDGETS, every=st.integers(1, 1000), thinning=st.integers(0, MOST))
def test_what_was_chosen_is_chosen_again(costs: StepCosts, budget: float, every: int, thinning: int) -> None:
    """It never swings, whatever the costs."""
    chosen = choose(costs, budget, every, thinning)
    assert 0 <= chosen <= MOST
    assert choose(costs, budget, every, chosen) == chosen


@given(costs=COSTS, budget=BUDGETS, every=st.integers(1, 1000), thinning=st.integers(0, MOST))
def test_it_keeps_to_the_budget_where_that_can_be_kept(
    costs: StepCosts, budget: float, every: int, thinning: int
) -> None:
    chosen = choose(costs, budget, every, thinning)
    assert chosen == MOST or costs.share(every << chosen) <= budget


def test_nothing_is_known_before_a_few_samples() -> None:
    history = CostHistory()
    history.add(None, 500, sampled=True)
    history.add(1_000, 500, sampled=True)
    assert history.costs(0.0) is None
    history.add(1_000, 500, sampled=True)
    assert history.costs(0.0) == StepCosts(step=500, plain=0, sample=500)


def test_costs_are_typical_ones() -> None:
    """A first sample that compiles something, and a pause within an epoch, say nothing of the rest."""
    history = CostHistory()
    for number in range(40):
        sampled = number % 10 == 0
        cost = 90_000 if number == 0 else 110 if sampled else 10
        history.add(10**9 if number == 5 else 1_000 + cost, cost, sampled=sampled)
    assert history.costs(25.0) == StepCosts(step=1_000, plain=10, sample=125)


def test_decisions_are_seconds_apart() -> None:
    rounds = []
    for step in (1e5, 1e6, 1e7, 1e9, 1e11):
        history = CostHistory()
        history.add(int(step), 0, sampled=False)
        rounds.append(history.round())
    assert rounds == [4096, 1024, 128, 32, 32]
    assert CostHistory().round() == 32
