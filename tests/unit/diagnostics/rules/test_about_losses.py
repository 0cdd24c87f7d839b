import math
from collections.abc import Iterable
from random import Random

import pytest

from nissa.diagnostics.finding import Finding
from nissa.diagnostics.rulebook import RuleBook
from tests.unit.diagnostics.readings import book, judge, step

NAN, INF = float("nan"), float("inf")


def told(losses: Iterable[float | None], name: str, rules: RuleBook | None = None) -> list[Finding]:
    rules = rules or book()
    return [
        found for number, loss in enumerate(losses) for found in judge(rules, step(loss, number)) if found.name == name
    ]


def falling(number: int, start: float = 2.3, end: float = 0.3, noise: float = 0.05) -> list[float]:
    random = Random(1)  # noqa: S311 - no secret
    return [end + (start - end) * math.exp(-4 * n / number) + random.gauss(0, noise) for n in range(number)]


def test_a_training_that_goes_well_raises_nothing() -> None:
    rules = book()
    assert [each for number, loss in enumerate(falling(600)) for each in judge(rules, step(loss, number))] == []
    assert set(rules.flags.values()) == {False}


@pytest.mark.parametrize(("loss", "word"), [(NAN, "NaN"), (INF, "infinite"), (-INF, "infinite")])
def test_a_loss_that_is_not_finite_is_told_at_once(loss: float, word: str) -> None:
    (found,) = told([1.0, loss], "nonfinite_loss")
    assert (found.step, found.seen) == (1, f"Training loss is {word}")


def test_a_loss_far_above_the_window_is_a_spike() -> None:
    losses = falling(200)
    losses[150] = 9.0
    raised, over = told(losses, "loss_spike")
    assert (raised.step, raised.raised, over.raised) == (150, True, False)


def test_a_hard_batch_after_convergence_is_no_spike() -> None:
    losses = [2.3] * 12 + [0.001] * 200 + [0.5] + [0.001] * 20
    assert told(losses, "loss_spike") == []


def test_a_spike_that_lasts_is_given_up() -> None:
    rules = book()
    told([*falling(200), *[9.0] * 60], "loss_spike", rules)
    assert not rules.flags["loss_spike"]


def test_a_loss_that_loses_what_was_gained_diverges() -> None:
    found = told([*falling(200), *[0.3 + n / 20 for n in range(60)]], "divergence")
    assert found
    assert found[0].raised
    assert 200 < (found[0].step or 0) < 240


def test_one_batch_is_no_divergence() -> None:
    losses = falling(300)
    losses[200] = 1e9
    assert told(losses, "divergence") == []


def test_a_loss_above_where_it_began_diverges_without_any_gain() -> None:
    assert told([2.3] * 20 + [2.3 + n / 10 for n in range(60)], "divergence")


def test_first_steps_that_multiply_the_loss_are_too_large() -> None:
    (found,) = told([2.3, 40.0, 900.0, 700.0, 30.0], "learning_rate_too_high")
    assert (found.step, found.certainty) == (4, "certain")


def test_a_loss_that_jumps_and_does_not_fall_has_steps_that_are_too_large() -> None:
    random = Random(2)  # noqa: S311 - no secret
    assert told([2.3 + random.uniform(-1.5, 1.5) for _ in range(300)], "learning_rate_too_high")


def test_noise_beside_progress_and_a_quiet_plateau_are_fine() -> None:
    random = Random(3)  # noqa: S311 - no secret
    assert told([x + random.uniform(-0.7, 0.7) for x in falling(300)], "learning_rate_too_high") == []
    assert told([2.3 + random.gauss(0, 0.02) for _ in range(300)], "learning_rate_too_high") == []


def test_a_step_without_a_loss_is_not_judged() -> None:
    rules = book()
    told([None] * 5, "divergence", rules)
    assert rules.flags == {}


@pytest.mark.parametrize("loss", [NAN, INF])
def test_a_loss_that_is_not_finite_concerns_its_own_rule_alone(loss: float) -> None:
    losses = falling(200)
    losses[120] = loss
    for name in ("loss_spike", "divergence", "learning_rate_too_high"):
        assert told(losses, name) == []


def test_one_odd_batch_at_the_beginning_says_nothing_about_the_rate() -> None:
    assert told([2.3, 2.2, 40.0, *falling(200)], "learning_rate_too_high") == []


def test_first_steps_need_not_be_wild_one_after_the_other() -> None:
    assert told([2.3, 2.2, 40.0, 3.1, 50.0, 3.0, 3.2, 3.1, 2.9], "learning_rate_too_high")


def late(losses: Iterable[float], name: str, missed: int) -> list[Finding]:
    """Return what is found in losses before which some were lost."""
    rules = book()
    steps = [step(loss, number + missed, missed=0 if number else missed) for number, loss in enumerate(losses)]
    found = [each for each in judge(rules, *steps) if each.name == name]
    assert found or rules.flags.get(name, False) is False
    return found


WILD = [0.1, 40.0, 900.0, 700.0, 30.0, *[20.0] * 200]


def test_a_loss_that_came_later_is_not_taken_for_the_first() -> None:
    assert late(WILD, "learning_rate_too_high", missed=0)
    assert late(WILD, "learning_rate_too_high", missed=1) == []


def test_after_a_beginning_that_was_lost_only_what_needs_none_is_judged() -> None:
    converged = [*[0.01] * 30, *[5.0] * 5, *[0.01] * 30, *[0.5] * 40]
    assert late(converged, "loss_spike", missed=0)
    assert late(converged, "divergence", missed=0)
    rules = book()
    steps = [step(loss, number + 60, missed=0 if number else 60) for number, loss in enumerate([*converged, NAN])]
    assert [each.name for each in judge(rules, *steps)] == ["nonfinite_loss"]
    assert rules.flags.keys() == {"nonfinite_loss"}


def test_a_beginning_of_which_little_was_lost_is_still_one() -> None:
    losses = falling(200)
    losses[150] = 9.0
    assert late(losses, "loss_spike", missed=3)
    assert late([*falling(200), *[0.3 + n / 20 for n in range(60)]], "divergence", missed=3)


def test_a_level_that_changed_while_losses_were_lost_is_no_spike() -> None:
    before, after = [step(1.0, n) for n in range(50)], [step(4.0, n, missed=40 * (n == 90)) for n in range(90, 130)]
    assert [each.name for each in judge(book(), *before, *after) if each.name == "loss_spike"] == []
    at_once = [step(4.0, n) for n in range(50, 90)]
    assert [each.name for each in judge(book(), *before, *at_once) if each.name == "loss_spike"]


def test_what_was_raised_does_not_end_because_losses_were_lost() -> None:
    rules = book()
    judge(rules, *[step(loss, n) for n, loss in enumerate([*[1.0] * 50, 9.0])])
    assert rules.flags["loss_spike"]
    judge(rules, *[step(9.0, n, missed=20 * (n == 71)) for n in range(71, 80)])
    assert rules.flags["loss_spike"]
