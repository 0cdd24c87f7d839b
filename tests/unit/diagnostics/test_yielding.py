"""Rules yield to a contract that names the cause of their symptoms."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nissa.config import TelemetryConfig
from nissa.diagnostics.finding import Finding
from nissa.diagnostics.rulebook import RuleBook
from nissa.hub.measurements import StepMeasured, StepSkipped
from nissa.hub.program_facts import ProgramFacts
from tests.unit.diagnostics.readings import step

NAN = float("nan")


def book(**rules: Any) -> RuleBook:
    overrides = {f"diagnostics__rules__{name}": value for name, value in rules.items()}
    return RuleBook(TelemetryConfig.from_profile("diagnostic", overrides).diagnostics)


def rated(number: int, rate: float, *, loss: float | None = None, model: str | None = None) -> StepMeasured:
    return replace(step(loss, number, model=model), learning_rate=rate, learning_rates=(rate,))


def wild(number: int) -> float:
    """Losses that jump by half of the first loss and do not fall."""
    return 2.0 + (number % 2)


def told(found: list[Finding]) -> list[tuple[str, bool]]:
    return [(each.name, each.raised) for each in found]


def skipped(rules: RuleBook, number: int, steps: int = 0) -> list[Finding]:
    return rules.judge(
        [],
        [],
        [StepSkipped(env_id=None, model_name=None, time_unix_nano=10_000 + n, step=steps) for n in range(number)],
    )


def summed(number: int, loss: float, *, kept: int = 0, model: str | None = None) -> StepMeasured:
    """A step at which facts were collected: since how many steps gradients are kept."""
    facts = ProgramFacts(checked=number + 1, kept=kept)
    return replace(step(loss, number, model=model), program=facts, signals={"new_share": 0.1} if kept else {})


LOW, HIGH = [2.0 - number / 100 for number in range(100)], [30.0] * 30
"""A loss that falls, and one that has diverged."""


def diverged(rules: RuleBook, model: str | None = None) -> list[Finding]:
    return rules.judge([step(loss, number, model=model) for number, loss in enumerate([*LOW, *HIGH])], [])


def test_a_rule_is_lowered_when_a_contract_explains_it_and_raised_again_if_its_symptoms_last() -> None:
    rules = book(recoveries=2, cooldown=0)
    assert ("divergence", True) in told(diverged(rules))
    found = rules.judge([summed(130 + n, 30.0, kept=6 + n) for n in range(3)], [])
    assert told(found)[:2] == [("gradients_never_zeroed", True), ("divergence", False)]
    assert found[1].seen == "Explained by gradients never zeroed"
    assert (found[1].up, found[1].step, rules.flags["divergence"]) == (False, 132, False)
    assert "divergence" not in [each.name for each in rules.findings]
    found = rules.judge([summed(133 + n, 30.0) for n in range(2)], [])
    assert told(found)[:2] == [("gradients_never_zeroed", False), ("divergence", True)]
    assert rules.flags["divergence"]


def test_a_rule_that_is_explained_is_not_raised() -> None:
    rules = book()
    found = rules.judge([summed(n, loss, kept=6 + n) for n, loss in enumerate([*LOW, *HIGH])], [])
    assert told(found) == [("gradients_never_zeroed", True)]


def test_a_contract_of_one_model_explains_nothing_in_another() -> None:
    rules = book()
    rules.judge([summed(n, 1.0, kept=6 + n, model="a") for n in range(3)], [])
    assert ("divergence", True) in told(diverged(rules, "b"))
    assert ("divergence", True) not in told(diverged(rules, "a"))


def test_skipped_steps_are_counted_from_the_last_completed_one() -> None:
    rules = book()
    assert skipped(rules, 19) == []
    assert rules.judge([step(1.0, 0)], []) == []
    assert skipped(rules, 19, steps=1) == []
    (found,) = skipped(rules, 1, steps=1)
    assert (found.name, found.value, found.raised) == ("every_step_skipped", 20, True)
    assert told(rules.judge([step(1.0, number) for number in range(1, 9)], [])) == [("every_step_skipped", False)]


RATE = st.sampled_from([0.0, 0.0, 0.0, 0.1])


@given(st.lists(st.tuples(RATE, st.integers(1, 30)), max_size=12), st.sets(st.integers(0, 300)))
def test_how_steps_are_split_into_blocks_changes_nothing(rates: list[tuple[float, int]], cuts: set[int]) -> None:
    flat = [rate for rate, times in rates for _ in range(times)]
    steps = [rated(number, rate, loss=wild(number)) for number, rate in enumerate(flat)]
    quick: dict[str, Any] = {"recoveries": 2, "cooldown": 0, "judged_after": 10, "warm_up": 2}
    one_by_one, parts = book(**quick), book(**quick)
    expected = [found for each in steps for found in one_by_one.judge([each], [])]
    edges = sorted({0, len(steps), *(cut % (len(steps) + 1) for cut in cuts)})
    found = [each for start, end in pairwise(edges) for each in parts.judge(steps[start:end], [])]
    assert repr(found) == repr(expected)
    assert parts.flags == one_by_one.flags
