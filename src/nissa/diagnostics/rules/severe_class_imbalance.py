"""Classes that are recognised much worse than others, of the seed document, and beyond what chance explains.

An accuracy of few examples varies by itself: its standard error is that of a share, sqrt(p (1 - p) / n), with one success
and one failure added (Agresti and Coull, 1998) so that a class without a hit has one too.
"""

import math
from collections import deque
from statistics import fmean, median
from typing import TYPE_CHECKING

from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot

_ERRORS = 2.0
_RECOGNISED = 0.5
_IMPROVING = 0.05


class SevereClassImbalance(Rule):
    """A spread between the best and the worst class above its limit."""

    name = "severe_class_imbalance"
    immediate = True  # it waits until accuracies have settled
    advice = "Weight the loss by class, sample the worst class more often, or look at its labels."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
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
        if spread > limit + doubt and (snapshot.class_variance or 0.0) > self.rules.class_variance:
            if _improving(snapshot) or not self._settled or median(known.values()) < _RECOGNISED:
                return UNCLEAR
            seen = f"Class imbalance: {worst}={known[worst]:.0%} vs {best}={known[best]:.0%}"
            return Symptom(seen=seen, value=spread, limit=limit)
        return FINE if spread < limit else UNCLEAR

    @property
    def _settled(self) -> bool:
        """Whether accuracies have come to where they stay: while a network learns, some classes come before others."""
        full = len(self._means) == self._means.maxlen
        return full and max(self._means) - min(self._means) <= self.rules.settled


def _improving(snapshot: "EpochSnapshot") -> bool:
    loss, delta = snapshot.validation_loss, snapshot.loss_delta
    return loss is not None and delta is not None and delta < -_IMPROVING * abs(loss)


def _error(accuracy: float, support: int | None) -> float:
    if not support:
        return 0.0
    share = (accuracy * support + 1) / (support + 2)
    return math.sqrt(share * (1 - share) / (support + 2))
