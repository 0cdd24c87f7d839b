"""A validation loss well above the training loss, if both measure the same (`EpochSnapshot.train_validation_gap`)."""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot

_NEAR = 1.2
RELATIVE: Final = 0.25
"""Gap as a share of the training loss that counts, so that units do not matter."""


class Overfitting(Rule):
    """The gap between the losses is above its limit."""

    name = "overfitting"
    advice = "Stop earlier, regularise more, augment the data, or use a smaller network."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._first: float | None = None
        self._best = math.inf

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        gap, limit, train = snapshot.train_validation_gap, self.config.overfitting_gap, snapshot.train_loss
        # If the first loss was lost, a later one is used instead: it is lower, which makes the rule stricter.
        if gap is None or train is None or "train_loss" in snapshot.incomplete or not math.isfinite(gap):
            return None
        self._first = train if self._first is None else self._first
        self._best = min(self._best, train)
        # A failing training has gaps too, so require that the training loss is low: near its best and below its first.
        if gap > max(limit, RELATIVE * abs(train)) and train <= _NEAR * self._best and train < self._first:
            return Symptom(seen=f"Possible overfitting (train-val gap: {gap:.2f})", value=gap, limit=limit)
        return FINE if gap < 0.8 * limit else UNCLEAR
