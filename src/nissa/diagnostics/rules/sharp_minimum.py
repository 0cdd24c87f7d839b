"""A loss that rises steeply around the weights, or a learning rate above the critical one.

Sharpness limits the step size. It does not imply that the network generalises badly (Andriushchenko et al., 2302.07011).
"""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.diagnostics.snapshot import EpochSnapshot

_MARGIN: Final = 1.25
"""Ratio of the learning rate to the critical one above which a minimum is sharp. Full-batch training settles near 1
(Cohen et al., 2021); single batches scatter around it."""


class SharpMinimum(Rule):
    """The average-case sharpness is above its limit, or the learning rate is above the critical one (Cohen et al., 2021)."""

    name = "sharp_minimum"
    advice = "Lower the learning rate before stability is lost; a sharp minimum need not generalise badly."

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        judged = [_average(snapshot, self.rules.sharpness), _margin(snapshot, _MARGIN)]
        symptoms = [each for each in judged if isinstance(each, Symptom)]
        return symptoms[0] if symptoms else FINE if FINE in judged else None


def _average(snapshot: "EpochSnapshot", limit: float) -> Judgement:
    value = snapshot.sharpness.get("average_case")
    if value is None or not math.isfinite(value):
        return None
    if value - snapshot.sharpness_error.get("average_case", 0.0) <= limit:
        return FINE
    return Symptom(seen=f"Sharp minimum ({value:.2f})", certainty=Certainty.POSSIBLE, value=value, limit=limit)


def _margin(snapshot: "EpochSnapshot", limit: float) -> Judgement:
    margin = snapshot.stability_margin
    if margin is None or not math.isfinite(margin):
        return None
    if margin <= limit:
        return FINE
    return Symptom(seen=f"Sharp minimum ({margin:.2f} of the stable learning rate)", value=margin, limit=limit)
