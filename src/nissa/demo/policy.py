"""When to grow, and what to keep: gates and decisions, computed from measured numbers alone.

Nothing here knows about networks. Accuracies and gains are fractions (0.012 is 1.2 points). A gain is always measured on
the validation images, twice over the same ones: with the seed and without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from nissa.events import GateResult

HOST_BUSY = "host_busy"
"""The one check that patience does not run out on: another graft is under way, or the host is settling after one."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a seed has to show, and how long it may take."""

    window: int = 3
    """Epochs that a measurement is averaged over."""

    warmup_epochs: int = 11
    """Epochs before the first seed may germinate."""

    stable_change: float = 0.01
    """The host has stabilised when its accuracy rose by less than this from one window to the next."""

    training_epochs: int = 4
    """Epochs that a seed trains in isolation at least."""

    training_patience: int = 8
    """Epochs after which a seed that still shows no gain in isolation is culled."""

    isolation_gain: float = 0.005
    """Accuracy that a seed has to add to the host in isolation (G2)."""

    blending_epochs: int = 4
    """Epochs that alpha takes from 0 to 1."""

    full_alpha: float = 0.95
    """Alpha from which a seed counts as blended (G3)."""

    probation_epochs: int = 3
    """Epochs that a blended seed is observed at least."""

    probation_patience: int = 5
    """Epochs after which a blended seed that has not proved itself is culled."""

    counterfactual_gain: float = 0.01
    """Accuracy that has to be lost if the seed were switched off (G5)."""

    total_improvement: float = 0.01
    """Accuracy that has to be gained since just before the seed touched the host (G5)."""

    settling_epochs: int = 3
    """Epochs that a host is left alone after a graft has ended, so that the next one is measured from firm ground."""


class GateVerdict(Enum):
    """What follows from a gate."""

    ADVANCE = "advance"
    HOLD = "hold"
    CULL = "cull"


def decide(gate: GateResult, *, epochs: int, patience: int) -> GateVerdict:
    """Say what becomes of a seed that has spent ``epochs`` in its stage: on, again next epoch, or out."""
    if gate.passed:
        return GateVerdict.ADVANCE
    at_fault = set(gate.checks_failed) - {HOST_BUSY}
    return GateVerdict.CULL if at_fault and epochs >= patience else GateVerdict.HOLD


def has_stabilised(accuracies: Sequence[float], policy: Policy) -> bool:
    """Say whether a host has learned what it can by itself, for now."""
    if len(accuracies) < max(policy.warmup_epochs, 2 * policy.window):
        return False
    recent, before = accuracies[-policy.window :], accuracies[-2 * policy.window : -policy.window]
    return mean(recent) - mean(before) < policy.stable_change


def has_time(remaining: int, policy: Policy) -> bool:
    """Say whether a seed that germinates now can be decided on in the ``remaining`` epochs, taking its time."""
    return remaining >= policy.training_patience + policy.blending_epochs + policy.probation_patience


def alpha_after(epochs: int, policy: Policy) -> float:
    """Return the alpha of a seed that has been blending for ``epochs``: a straight ramp."""
    return min(1.0, epochs / policy.blending_epochs)


def identified(seed_id: str, blueprint: str) -> GateResult:
    """G0: the seed says who it is and what it was built from."""
    return _gate("G0", {"seed_id": bool(seed_id), "blueprint_id": bool(blueprint)}, score=None)


def germinated(*, present: bool) -> GateResult:
    """G1: the seed is in its slot."""
    return _gate("G1", {"module_in_slot": present}, score=None)


def ready_to_blend(gain: float, *, epochs: int, host_free: bool, policy: Policy) -> GateResult:
    """G2: trained in isolation, the seed makes the host better, and the host can take it."""
    checks = {
        f"isolation_gain_{gain:.2%}": gain >= policy.isolation_gain,
        f"epochs_in_stage_{epochs}": epochs >= policy.training_epochs,
        "host_free" if host_free else HOST_BUSY: host_free,
    }
    return _gate("G2", checks, score=_score(gain, policy.isolation_gain))


def blended(alpha: float, *, policy: Policy) -> GateResult:
    """G3: the seed has its full say."""
    return _gate("G3", {f"alpha_{alpha:.2f}": alpha >= policy.full_alpha}, score=alpha)


def permanent(counterfactual: float, improvement: float, *, epochs: int, policy: Policy) -> GateResult:
    """G5: without the seed the network would be worse, and with it the network is better than it was before.

    Both are asked because each can mislead: a host that has grown used to a seed misses it even where the seed adds
    nothing, and a host that still learns becomes better by itself.
    """
    checks = {
        f"counterfactual_gain_{counterfactual:.2%}": counterfactual >= policy.counterfactual_gain,
        f"total_improvement_{improvement:.2%}": improvement >= policy.total_improvement,
        f"epochs_in_stage_{epochs}": epochs >= policy.probation_epochs,
    }
    lesser = min(counterfactual / policy.counterfactual_gain, improvement / policy.total_improvement)
    return _gate("G5", checks, score=_score(lesser, 1.0))


def cull_reason(gate: GateResult) -> str:
    """Name why a seed was culled: the first check that failed, without its number."""
    failed = next(check for check in gate.checks_failed if check != HOST_BUSY)
    return f"{gate.gate}: no {failed.rsplit('_', 1)[0].replace('_', ' ')}"


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def _score(value: float, threshold: float) -> float:
    """Return 0.5 at the threshold, 0 at nothing, 1 at twice the threshold."""
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
