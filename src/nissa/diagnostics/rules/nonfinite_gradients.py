"""Gradients with elements that are NaN or infinite: the optimizer writes them into the weights.

Source: the assertion that trainers make on each step, for example torchtitan's.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers
from nissa.events import Severity

if TYPE_CHECKING:
    from nissa.hub.measurements import GradientsMeasured


class NonfiniteGradients(Rule):
    """Any element that is not finite."""

    name = "nonfinite_gradients"
    severity = Severity.ERROR
    anomaly = "nonfinite"
    advice = (
        "Skip such steps (a GradScaler does), lower the learning rate, or look at the inputs of the first layer named."
    )
    immediate = True

    def gradients(self, sample: "GradientsMeasured") -> Judgement:
        """Judge a sample."""
        layers = sample.health.nonfinite
        if not layers:
            return FINE if sample.health.layers else None
        return Symptom(
            seen=f"Non-finite gradients in {in_layers(layers)}",
            certainty=Certainty.CERTAIN,
            layers=layers,
            value=len(layers),
        )
