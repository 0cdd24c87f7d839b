"""Opportunities of a snapshot: states that invite an action of the policy."""

import math
from collections.abc import Sequence
from typing import Final

from nissa.diagnostics.snapshot import EpochSnapshot

GOOD_HEALTH: Final = 0.8
UNHEALTHY: Final = frozenset(
    {
        "nonfinite_loss",
        "nonfinite_gradients",
        "divergence",
        "exploding_gradients",
        "vanishing_gradients",
        "gradient_spike",
        "dead_units",
        "poor_gradient_health",
        "learning_rate_too_high",
        "gradients_never_zeroed",
        "gradients_zeroed_before_step",
        "half_precision_underflow",
        "every_step_skipped",
    }
)
"""Flags with which gradients are not healthy, whatever their score: it counts absolute sizes only."""

STABLE_RANGE: Final = 0.1
STABLE_EPOCHS: Final = 5
EARLY_ACCURACY: Final = 0.5


def opportunities(snapshot: EpochSnapshot, history: Sequence[EpochSnapshot]) -> tuple[str, ...]:
    """Return the names of the opportunities of a snapshot with its flags; ``history`` ends before the snapshot."""
    losses = [each.validation_loss for each in (*history, snapshot)][-STABLE_EPOCHS:]
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    health = snapshot.gradient_health.score if snapshot.gradient_health else None
    accuracy = snapshot.validation_accuracy
    found = {
        "healthy_gradients": health is not None and health > GOOD_HEALTH and UNHEALTHY.isdisjoint(snapshot.red_flags),
        "stable_training": len(known) == STABLE_EPOCHS and max(known) - min(known) < STABLE_RANGE,
        "early_stage_flexibility": accuracy is not None and accuracy < EARLY_ACCURACY,
    }
    return tuple(name for name, holds in found.items() if holds)
