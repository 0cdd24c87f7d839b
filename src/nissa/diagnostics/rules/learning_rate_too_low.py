"""A loss that falls steadily but very slowly, because gradients agree in direction and the steps are tiny.

Validations are judged, since they have no batch noise. Each is better than the previous one, but the total improvement is
small, and the training loss is near its initial value. Convergence looks the same only if it happened in the first epoch.
"""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot

_PROGRESS: Final = 0.1
"""Share of the first losses below which progress is small; the same as in ``learning_rate_too_high``, chosen on the tuning half of tests/pathologies."""

_FALLS = 5
"""Consecutive validations that must improve; random order would do so in 1 of 120 cases."""


class LearningRateTooLow(Rule):
    """Every validation improves, but the progress is small."""

    name = "learning_rate_too_low"
    advice = "Raise the learning rate by a factor of 3 to 10."
    immediate = True  # the rule itself requires several validations

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
            self._unknown |= self._first is None  # a later loss cannot replace a lost first one
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
        if not self._falls or gained >= _PROGRESS or _share(first_train - self._best, first_train) >= _PROGRESS:
            return FINE
        if self._falls <= _FALLS:
            return UNCLEAR
        return Symptom(
            seen=f"Loss falls steadily, but by {gained:.1%} in {self._falls} epochs",
            certainty=Certainty.POSSIBLE,
            value=gained,
            limit=_PROGRESS,
        )


def _share(part: float, whole: float) -> float:
    return part / max(abs(whole), math.ulp(0.0))
