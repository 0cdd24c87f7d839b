"""Gradients with NaN or infinite elements, which the optimizer writes into the weights.

Source: the check that trainers make in each step, for example torchtitan.
"""

from typing import TYPE_CHECKING

import numpy as np

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers
from nissa.events import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.diagnostics.blocks import SampleBlock


class NonfiniteGradients(Rule):
    """An element is NaN or infinite."""

    name = "nonfinite_gradients"
    severity = Severity.ERROR
    anomaly = "nonfinite"
    advice = (
        "Skip such steps (a GradScaler does), lower the learning rate, or look at the inputs of the first layer named."
    )
    immediate = True

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        judged: list[Judgement] = [FINE if layers else None for layers in block.layers.tolist()]
        for row in np.flatnonzero(block.broken):
            layers = block.named(block.nonfinite[row])
            judged[row] = Symptom(
                seen=f"Non-finite gradients in {in_layers(layers)}",
                certainty=Certainty.CERTAIN,
                layers=layers,
                value=len(layers),
            )
        return judged
