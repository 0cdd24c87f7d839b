"""Classes that are recognised much worse than others, beyond statistical noise.

The accuracy over few examples is noisy. Its standard error is that of a proportion, sqrt(p (1 - p) / n), with one success
and one failure added (Agresti and Coull, 1998), so that it is above 0 for a class without a hit.
"""

import math
from collections import deque
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot

_VARIANCE: Final = 0.02
"""Variance of the class accuracies above which their imbalance is severe; chosen on the tuning half of tests/pathologies."""

_STABLE: Final = 0.03
"""Maximum change of the mean accuracy over three validations in which accuracies count as stable; chosen on the tuning half of tests/pathologies."""

_ERRORS = 2.0
_RECOGNISED = 0.5
_IMPROVING = 0.05


class SevereClassImbalance(Rule):
    """The spread between the best and the worst class is above its limit."""

    name = "severe_class_imbalance"
    immediate = True  # the rule itself waits until accuracies have settled
    advice = "Weight the loss by class, sample the worst class more often, or look at its labels."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        # Mean accuracies of the newest validations, to detect when they are stable.
        self._means: deque[float] = deque(maxlen=3)

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        known, limit = snapshot.known_class_accuracies, self.config.class_imbalance_spread
        if "per_class_accuracy" in snapshot.incomplete:
            self._means.clear()
            return None
        if len(known) < 2 or not all(0 <= each <= 1 for each in known.values()):  # noqa: PLR2004 - a spread needs two
            return None
        worst, best = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        spread = known[best] - known[worst]
        support = snapshot.per_class_support
        doubt = _ERRORS * math.hypot(*(_error(known[name], support.get(name)) for name in (worst, best)))
        self._means.append(fmean(known.values()))
        if spread > limit + doubt and (snapshot.class_variance or 0.0) > _VARIANCE:
            if _improving(snapshot) or not self._settled or median(known.values()) < _RECOGNISED:
                return UNCLEAR
            seen = f"Class imbalance: {worst}={known[worst]:.0%} vs {best}={known[best]:.0%}"
            return Symptom(seen=seen, value=spread, limit=limit)
        return FINE if spread < limit else UNCLEAR

    @property
    def _settled(self) -> bool:
        """Whether accuracies are stable; early in training some classes are learned before others."""
        full = len(self._means) == self._means.maxlen
        return full and max(self._means) - min(self._means) <= _STABLE


def _improving(snapshot: "EpochSnapshot") -> bool:
    loss, delta = snapshot.validation_loss, snapshot.loss_delta
    return loss is not None and delta is not None and delta < -_IMPROVING * abs(loss)


def _error(accuracy: float, support: int | None) -> float:
    if not support:
        return 0.0
    share = (accuracy * support + 1) / (support + 2)
    return math.sqrt(share * (1 - share) / (support + 2))
