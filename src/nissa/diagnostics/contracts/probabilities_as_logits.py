"""Outputs that are probabilities already, under a loss that expects logits.

A softmax in front of ``cross_entropy``, or a sigmoid in front of ``binary_cross_entropy_with_logits``, squeezes the loss into a
small range. The gradient that the loss sends back proves it, see `nissa.gradients.output_probe`.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig


class ProbabilitiesAsLogits(ProgramContract):
    """Outputs are probabilities, and the gradient of the loss is that of cross entropy of them as logits."""

    name = "probabilities_as_logits"
    advice = (
        "Remove the softmax or sigmoid at the end of the model, or use a loss of probabilities: nll_loss of log_softmax, or "
        "binary_cross_entropy."
    )
    observations = 8
    source = "UMLAUT (Schoop et al., CHI 2021), missing or doubled softmax; DeepFD benchmark, label `act`"
    twin = "probabilities under a loss of probabilities, logits that happen to be between 0 and 1 for a few steps"
    forward = True
    explains = frozenset({"learning_rate_too_low", "sustained_plateau", "vanishing_gradients", "stalled_layer"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        found = seen.signals.get("probability", math.nan)
        if math.isnan(found):
            return None
        if self._streak.count(bad=found == 1) < self.observations:
            return None if found else FINE
        kind = "sigmoid" if seen.facts.sizes[1] == 1 else "softmax or sigmoid"
        return Symptom(
            seen=f"The loss takes probabilities for logits: the output of the model is that of a {kind}",
            certainty=Certainty.CERTAIN,
            value=self._streak.length,
            limit=self.observations,
        )
