"""Opportunities of a snapshot: states that invite an action of the policy."""

import math
from collections.abc import Sequence
from typing import Final

from nissa.diagnostics.snapshot import EpochSnapshot

GOOD_HEALTH: Final = 0.8
STABLE_RANGE: Final = 0.1
STABLE_EPOCHS: Final = 5
EARLY_ACCURACY: Final = 0.5


def opportunities(snapshot: EpochSnapshot, history: Sequence[EpochSnapshot]) -> tuple[str, ...]:
    """Return the names of the opportunities; ``history`` ends before the snapshot."""
    losses = [each.validation_loss for each in (*history, snapshot)][-STABLE_EPOCHS:]
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    health = snapshot.gradient_health.score if snapshot.gradient_health else None
    accuracy = snapshot.validation_accuracy
    found = {
        "healthy_gradients": health is not None and health > GOOD_HEALTH,
        "stable_training": len(known) == STABLE_EPOCHS and max(known) - min(known) < STABLE_RANGE,
        "early_stage_flexibility": accuracy is not None and accuracy < EARLY_ACCURACY,
    }
    return tuple(name for name, holds in found.items() if holds)
