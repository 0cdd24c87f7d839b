"""Decisions follow from numbers alone."""

import pytest

from nissa.demo import policy as rules
from nissa.demo.policy import GateDecision, Policy
from nissa.events import GateResult

POLICY = Policy()


def ready(gain: float = 0.02, *, epochs: int = POLICY.training_epochs, host_free: bool = True) -> GateResult:
    return rules.ready_to_blend(gain, epochs=epochs, host_free=host_free, policy=POLICY)


def permanent(
    counterfactual: float = 0.03, improvement: float = 0.02, *, epochs: int = POLICY.probation_epochs
) -> GateResult:
    return rules.permanent(counterfactual, improvement, epochs=epochs, policy=POLICY)


def test_a_seed_that_gains_in_isolation_is_ready() -> None:
    gate = ready(0.012)

    assert (gate.gate, gate.passed, gate.checks_failed) == ("G2", True, ())
    assert gate.checks_passed == ("isolation_gain_1.20%", "epochs_in_stage_4", "host_free")


def test_a_seed_that_gains_too_little_is_not_and_says_how_little() -> None:
    gate = ready(-0.003)

    assert not gate.passed
    assert gate.checks_failed == ("isolation_gain_-0.30%",)
    assert gate.score == 0.0
    assert "isolation_gain_-0.30%" in gate.message


def test_a_threshold_that_is_just_reached_is_reached() -> None:
    assert ready(POLICY.isolation_gain).passed
    assert ready(POLICY.isolation_gain).score == 0.5
    assert permanent(POLICY.counterfactual_gain, POLICY.total_improvement).passed


def test_a_seed_must_have_trained_for_a_while() -> None:
    assert ready(epochs=POLICY.training_epochs - 1).checks_failed == ("epochs_in_stage_3",)


def test_a_seed_waits_for_a_busy_host_however_long_it_takes() -> None:
    gate = ready(host_free=False)

    assert gate.checks_failed == (rules.HOST_BUSY,)
    assert rules.decide(gate, epochs=1000, patience=8) is GateDecision.HOLD


def test_a_useless_seed_does_not_wait_for_a_busy_host() -> None:
    gate = ready(0.0, host_free=False)

    assert rules.decide(gate, epochs=7, patience=8) is GateDecision.HOLD
    assert rules.decide(gate, epochs=8, patience=8) is GateDecision.CULL
    assert rules.cull_reason(gate) == "G2: no isolation gain"


def test_a_gate_that_is_passed_lets_the_seed_on_at_once() -> None:
    assert rules.decide(ready(), epochs=1, patience=8) is GateDecision.ADVANCE


@pytest.mark.parametrize(
    ("counterfactual", "improvement", "failed", "reason"),
    [
        (0.002, 0.02, ("counterfactual_gain_0.20%",), "G5: no counterfactual gain"),
        (0.03, 0.001, ("total_improvement_0.10%",), "G5: no total improvement"),
        (-0.01, -0.02, ("counterfactual_gain_-1.00%", "total_improvement_-2.00%"), "G5: no counterfactual gain"),
    ],
)
def test_to_stay_a_seed_needs_both_gains(
    counterfactual: float, improvement: float, failed: tuple[str, ...], reason: str
) -> None:
    gate = permanent(counterfactual, improvement)

    assert gate.checks_failed == failed
    assert rules.cull_reason(gate) == reason


def test_the_lesser_gain_makes_the_score() -> None:
    assert permanent(0.5, POLICY.total_improvement).score == 0.5
    assert permanent(0.5, 0.5).score == 1.0
    assert permanent(0.5, -0.5).score == 0.0


def test_a_reason_for_culling_carries_no_number() -> None:
    reasons = {rules.cull_reason(ready(gain)) for gain in (-0.5, -0.01, 0.0, 0.004)}
    assert reasons == {"G2: no isolation gain"}


def test_alpha_rises_in_equal_steps_and_ends_full() -> None:
    ramp = [rules.alpha_after(epochs, POLICY) for epochs in range(POLICY.blending_epochs + 2)]
    assert ramp == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_seed_is_blended_from_full_alpha_on() -> None:
    assert rules.blended(0.95, policy=POLICY).passed
    assert rules.blended(0.75, policy=POLICY).checks_failed == ("alpha_0.75",)


def test_identity_and_presence_are_gates_too() -> None:
    assert rules.identified("s", "norm").passed
    assert rules.identified("", "norm").checks_failed == ("seed_id",)
    assert rules.germinated(present=True).passed
    assert not rules.germinated(present=False).passed


def test_a_host_that_still_learns_has_not_stabilised() -> None:
    climbing = [0.01 * epoch for epoch in range(20)]
    level = [*climbing, *[0.2] * 6]

    assert not rules.has_stabilised(climbing, POLICY)
    assert rules.has_stabilised(level, POLICY)


def test_nothing_has_stabilised_before_the_warm_up_is_over() -> None:
    assert not rules.has_stabilised([0.5] * (POLICY.warmup_epochs - 1), POLICY)
    assert rules.has_stabilised([0.5] * POLICY.warmup_epochs, POLICY)


def test_a_seed_germinates_only_where_it_can_be_decided_on() -> None:
    whole_life = POLICY.training_patience + POLICY.blending_epochs + POLICY.probation_patience
    assert rules.has_time(whole_life, POLICY)
    assert not rules.has_time(whole_life - 1, POLICY)
