"""A validation loss well above the training loss, of the seed document."""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot

_NEAR = 1.2
_RELATIVE = 0.25


class Overfitting(Rule):
    """A gap between the losses above its limit."""

    name = "overfitting"
    advice = "Stop earlier, regularise more, augment the data, or use a smaller network."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._first: float | None = None
        self._best = math.inf

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        gap, limit, train = snapshot.train_validation_gap, self.config.overfitting_gap, snapshot.train_loss
        # A first loss that was lost needs no care: a later one is lower, which is harder to be below.
        if gap is None or train is None or "train_loss" in snapshot.incomplete or not math.isfinite(gap):
            return None
        self._first = train if self._first is None else self._first
        self._best = min(self._best, train)
        # A training that fails has gaps too: only where it learns the training data is it too good at them.
        if gap > max(limit, _RELATIVE * abs(train)) and train <= _NEAR * self._best and train < self._first:
            return Symptom(seen=f"Possible overfitting (train-val gap: {gap:.2f})", value=gap, limit=limit)
        return FINE if gap < 0.8 * limit else UNCLEAR
