"""Rules of the demo for seeds: gates and decisions, computed only from measured numbers.

The rules are independent of the network. Accuracies and gains are fractions (0.012 is 1.2 points). A gain is the
difference of two validation accuracies on the same images, with the seed and without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from nissa.events import GateResult

HOST_BUSY = "host_busy"
"""Check that fails while another seed is being grafted or the host is settling; it never causes a seed to be culled."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Thresholds and time limits of the gates."""

    window: int = 3
    """Number of epochs that measurements are averaged over."""

    warmup_epochs: int = 11
    """Epochs before the first seed may germinate."""

    stable_change: float = 0.01
    """Increase of accuracy between two windows below which the host counts as stabilised."""

    training_epochs: int = 4
    """Minimum number of epochs of training in isolation."""

    training_patience: int = 8
    """Number of epochs after which a seed without gain in isolation is culled."""

    isolation_gain: float = 0.005
    """Minimum gain of accuracy in isolation (G2)."""

    blending_epochs: int = 4
    """Number of epochs in which alpha rises from 0 to 1."""

    full_alpha: float = 0.95
    """Minimum alpha of a blended seed (G3)."""

    probation_epochs: int = 3
    """Minimum number of epochs of probation."""

    probation_patience: int = 5
    """Number of epochs of probation after which a seed that does not pass G5 is culled."""

    counterfactual_gain: float = 0.01
    """Minimum loss of accuracy when the seed is switched off (G5)."""

    total_improvement: float = 0.01
    """Minimum gain of accuracy since just before blending started (G5)."""

    settling_epochs: int = 3
    """Number of epochs between the end of one graft and the blending of the next, so that its baseline is stable."""


class GateDecision(Enum):
    """Decision that follows from a gate."""

    ADVANCE = "advance"
    HOLD = "hold"
    CULL = "cull"


def decide(gate: GateResult, *, epochs: int, patience: int) -> GateDecision:
    """Return the decision for a seed: advance, hold until the next epoch, or cull.

    Args:
        gate: Result of the gate.
        epochs: Number of epochs in the current stage.
        patience: Number of epochs after which a failed gate causes the seed to be culled.
    """
    if gate.passed:
        return GateDecision.ADVANCE
    at_fault = set(gate.checks_failed) - {HOST_BUSY}
    return GateDecision.CULL if at_fault and epochs >= patience else GateDecision.HOLD


def has_stabilised(accuracies: Sequence[float], policy: Policy) -> bool:
    """Return whether the host's accuracy has stopped rising."""
    if len(accuracies) < max(policy.warmup_epochs, 2 * policy.window):
        return False
    recent, before = accuracies[-policy.window :], accuracies[-2 * policy.window : -policy.window]
    return mean(recent) - mean(before) < policy.stable_change


def has_time(remaining: int, policy: Policy) -> bool:
    """Return whether ``remaining`` epochs suffice for a seed that uses all of its patience in each stage."""
    return remaining >= policy.training_patience + policy.blending_epochs + policy.probation_patience


def alpha_after(epochs: int, policy: Policy) -> float:
    """Return alpha after ``epochs`` of blending, on a linear ramp."""
    return min(1.0, epochs / policy.blending_epochs)


def identified(seed_id: str, blueprint: str) -> GateResult:
    """Evaluate gate G0: the seed has an id and a blueprint."""
    return _gate("G0", {"seed_id": bool(seed_id), "blueprint_id": bool(blueprint)}, score=None)


def germinated(*, present: bool) -> GateResult:
    """Evaluate gate G1: the seed's module is in its slot."""
    return _gate("G1", {"module_in_slot": present}, score=None)


def ready_to_blend(gain: float, *, epochs: int, host_free: bool, policy: Policy) -> GateResult:
    """Evaluate gate G2: the seed, trained in isolation, improves the host, and no other graft is in progress."""
    checks = {
        f"isolation_gain_{gain:.2%}": gain >= policy.isolation_gain,
        f"epochs_in_stage_{epochs}": epochs >= policy.training_epochs,
        "host_free" if host_free else HOST_BUSY: host_free,
    }
    return _gate("G2", checks, score=_score(gain, policy.isolation_gain))


def blended(alpha: float, *, policy: Policy) -> GateResult:
    """Evaluate gate G3: the seed is fully blended in."""
    return _gate("G3", {f"alpha_{alpha:.2f}": alpha >= policy.full_alpha}, score=alpha)


def permanent(counterfactual: float, improvement: float, *, epochs: int, policy: Policy) -> GateResult:
    """Evaluate gate G5: the network is worse without the seed, and better than before the graft.

    Both checks are required because each alone can mislead. A host that has adapted to a seed gets worse without it,
    even if the seed adds nothing. A host that is still learning gets better by itself.
    """
    checks = {
        f"counterfactual_gain_{counterfactual:.2%}": counterfactual >= policy.counterfactual_gain,
        f"total_improvement_{improvement:.2%}": improvement >= policy.total_improvement,
        f"epochs_in_stage_{epochs}": epochs >= policy.probation_epochs,
    }
    lesser = min(counterfactual / policy.counterfactual_gain, improvement / policy.total_improvement)
    return _gate("G5", checks, score=_score(lesser, 1.0))


def cull_reason(gate: GateResult) -> str:
    """Return the reason of a cull: the first failed check, without its value."""
    failed = next(check for check in gate.checks_failed if check != HOST_BUSY)
    return f"{gate.gate}: no {failed.rsplit('_', 1)[0].replace('_', ' ')}"


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def _score(value: float, threshold: float) -> float:
    """Map a value to a score: 0 at 0, 0.5 at the threshold, 1 at twice the threshold."""
    return max(0.0, min(1.0, value / (2 * threshold)))


def _gate(name: str, checks: Mapping[str, bool], *, score: float | None) -> GateResult:
    held = tuple(check for check, passed in checks.items() if passed)
    failed = tuple(check for check, passed in checks.items() if not passed)
    verdict = f"failed on {', '.join(failed)}" if failed else "passed"
    return GateResult(
        gate=name,
        passed=not failed,
        score=score,
        checks_passed=held,
        checks_failed=failed,
        message=f"{name} {verdict}",
    )
