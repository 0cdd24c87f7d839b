"""A loss that falls steadily, and hardly: gradients point the same way, and steps along them are tiny.

Judged by validations, which have no noise of batches: each is better than the one before, and all together are worth little,
while the training loss is where it began. Convergence looks alike only where all of it happened within the first epoch.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot

_FALLS = 5
"""Validations in a row, of which one order in 120 falls throughout by chance."""


class LearningRateTooLow(Rule):
    """Little progress, and all of it downhill."""

    name = "learning_rate_too_low"
    advice = "Raise the learning rate by a factor of 3 to 10."
    immediate = True  # it takes several validations anyway

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._first: tuple[float, float] | None = None
        self._best = math.inf
        self._before: float | None = math.inf
        self._falls = 0
        self._unknown = False

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        loss, train = snapshot.validation_loss, snapshot.train_loss
        if not {"validation_loss", "train_loss"}.isdisjoint(snapshot.incomplete):
            self._unknown |= self._first is None  # what comes later is not the beginning
            self._before, self._falls = None, 0
            return None
        if loss is None or train is None or self._unknown or not (math.isfinite(loss) and math.isfinite(train)):
            return None
        first_train, first_loss = self._first = self._first or (train, loss)
        self._best = min(self._best, train)
        before, self._before = self._before, loss
        if before is None:
            return None
        self._falls = self._falls + 1 if loss < before else 0
        gained = _share(first_loss - loss, first_loss)
        slow = self.rules.slow_progress
        if not self._falls or gained >= slow or _share(first_train - self._best, first_train) >= slow:
            return FINE
        if self._falls <= _FALLS:
            return UNCLEAR
        return Symptom(
            seen=f"Loss falls steadily, but by {gained:.1%} in {self._falls} epochs",
            certainty=Certainty.POSSIBLE,
            value=gained,
            limit=slow,
        )


def _share(part: float, whole: float) -> float:
    return part / max(abs(whole), math.ulp(0.0))
