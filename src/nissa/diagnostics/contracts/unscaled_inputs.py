"""Inputs far from unit scale, such as pixels from 0 to 255.

The root mean square of the input of the first layer is compared with fixed limits, because initialisation and usual learning
rates assume a scale near 1. A first layer that normalises or embeds its input is not judged.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig

_LARGE, _SMALL = 10.0, 1e-4


class UnscaledInputs(ProgramContract):
    """The root mean square of inputs is above 10, or below 0.0001."""

    name = "unscaled_inputs"
    advice = "Standardise the inputs: subtract the mean of each feature and divide by its standard deviation, or scale pixels to 0..1."
    observations = 3
    source = 'DeepFD benchmark, label `missing_prep`; LeCun et al., "Efficient BackProp" (1998)'
    twin = "inputs that the model itself normalises or embeds, sparse inputs, hidden states of a frozen part in front"
    forward = True
    explains = frozenset({"learning_rate_too_high", "learning_rate_too_low"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        size = seen.signals.get("input_rms")
        if not size or not math.isfinite(size):
            return None
        bad = size > _LARGE or size < _SMALL
        if self._streak.count(bad=bad) < self.observations:
            return None if bad else FINE
        return Symptom(
            seen=f"Inputs are far from unit scale: their root mean square is {size:.3g}",
            certainty=Certainty.LIKELY,
            value=size,
            limit=_LARGE if size > _LARGE else _SMALL,
            evidence=(f"observations={self._streak.length}",),
        )
