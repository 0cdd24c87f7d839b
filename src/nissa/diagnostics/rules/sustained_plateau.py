"""A validation loss that does not move, although training has not converged.

Training has converged if the loss is a small share of the first losses, or nearly all validation examples are right.
"""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom
from nissa.diagnostics.seed_findings import figure

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot

_STILL: Final = 0.01
"""Fall between two validations, as a share of the loss, that counts as movement; chosen on the tuning half of tests/pathologies."""

_COMPARABLE: Final = 3.0
"""Ratio of validation and training loss up to which they are comparable."""

_PERFECT: Final = 0.95
"""Accuracy from which little improvement is possible."""


class SustainedPlateau(Rule):
    """The validation loss is on a plateau of several epochs, well above a converged loss."""

    name = "sustained_plateau"
    advice = "Change the learning rate, let the network grow, or look at the data."
    immediate = True  # the plateau itself has a minimum length

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._first: float | None = None
        self._unknown = False

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        loss = snapshot.validation_loss
        if "validation_loss" in snapshot.incomplete:
            self._unknown |= self._first is None  # a later loss cannot replace a lost first one
            return None
        if loss is None or self._unknown or not math.isfinite(loss):
            return None
        self._first = loss if self._first is None else self._first
        if snapshot.plateau_length < self.config.plateau_epochs:
            return FINE
        if loss < self.rules.converged_share * _beginning(snapshot, self._first) or _nearly_perfect(snapshot):
            return FINE
        # The plateau threshold is absolute, and may be a large part of a small loss that still falls.
        if snapshot.loss_delta is not None and snapshot.loss_delta < -_STILL * abs(loss):
            return UNCLEAR
        return Symptom(
            seen=f"Loss plateaued for {snapshot.plateau_length} epochs at ~{figure(loss)}",
            value=float(snapshot.plateau_length),
            limit=float(self.config.plateau_epochs),
        )


def _beginning(snapshot: "EpochSnapshot", first: float) -> float:
    """Return the loss that the progress began at: the first validation, or a higher first training loss.

    A training may converge before its first validation. Its first losses count where the present losses of training and
    validation are comparable, which they are not if only one of them is scaled, summed or regularised.
    """
    beginning, train, loss = snapshot.first_train_loss, snapshot.train_loss, snapshot.validation_loss
    if beginning is None or train is None or loss is None or min(train, loss) <= 0:
        return first
    comparable = 1 / _COMPARABLE <= loss / train <= _COMPARABLE
    return max(first, beginning) if comparable else first


def _nearly_perfect(snapshot: "EpochSnapshot") -> bool:
    """Whether hardly an improvement is possible."""
    return snapshot.validation_accuracy is not None and snapshot.validation_accuracy >= _PERFECT
