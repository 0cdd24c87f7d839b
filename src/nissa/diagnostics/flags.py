"""The findings of a snapshot, as one table of names and conditions; each name is that of the seed document."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.profiles.sections import DiagnosticsConfig

Condition = Callable[[EpochSnapshot, DiagnosticsConfig], bool]

POOR_HEALTH: Final = 0.5
GOOD_HEALTH: Final = 0.8
STABLE_RANGE: Final = 0.1
STABLE_EPOCHS: Final = 5
EARLY_ACCURACY: Final = 0.5


def _health(snapshot: EpochSnapshot) -> float | None:
    return snapshot.gradient_health.score if snapshot.gradient_health else None


def _class_spread(snapshot: EpochSnapshot) -> float:
    accuracies = snapshot.known_class_accuracies.values()
    return max(accuracies) - min(accuracies) if accuracies else 0.0


RED_FLAGS: Final[dict[str, Condition]] = {
    "nonfinite_loss": lambda s, _: any(
        loss is not None and not math.isfinite(loss) for loss in (s.train_loss, s.validation_loss)
    ),
    "nonfinite_gradients": lambda s, _: bool(s.gradient_health and s.gradient_health.nonfinite),
    "exploding_gradients": lambda s, _: bool(s.gradient_health and s.gradient_health.exploding),
    "vanishing_gradients": lambda s, _: bool(s.gradient_health and s.gradient_health.vanishing),
    "poor_gradient_health": lambda s, _: (_health(s) is not None) and (_health(s) or 0.0) < POOR_HEALTH,
    "overfitting": lambda s, c: s.train_validation_gap is not None and s.train_validation_gap > c.overfitting_gap,
    "severe_class_imbalance": lambda s, c: _class_spread(s) > c.class_imbalance_spread,
    "sustained_plateau": lambda s, c: s.plateau_length >= c.plateau_epochs,
}
"""Worst first."""


def red_flags(snapshot: EpochSnapshot, config: DiagnosticsConfig) -> dict[str, bool]:
    """Return each flag with whether it is raised."""
    return {name: condition(snapshot, config) for name, condition in RED_FLAGS.items()}


def opportunities(snapshot: EpochSnapshot, history: Sequence[EpochSnapshot]) -> tuple[str, ...]:
    """Return the findings that invite action; ``history`` ends before the snapshot."""
    losses = [each.validation_loss for each in (*history, snapshot)][-STABLE_EPOCHS:]
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    accuracy = snapshot.validation_accuracy
    found = {
        "healthy_gradients": (_health(snapshot) or 0.0) > GOOD_HEALTH,
        "stable_training": len(known) == STABLE_EPOCHS and max(known) - min(known) < STABLE_RANGE,
        "early_stage_flexibility": accuracy is not None and accuracy < EARLY_ACCURACY,
    }
    return tuple(name for name, holds in found.items() if holds)
