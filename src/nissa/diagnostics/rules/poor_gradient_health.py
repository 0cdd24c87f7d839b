"""Gradient health as a single score; the formula is documented at `GradientHealth`."""

from typing import TYPE_CHECKING

import numpy as np

from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.diagnostics.blocks import SampleBlock


class PoorGradientHealth(Rule):
    """The health score is below its limit."""

    name = "poor_gradient_health"
    advice = "Look at the layers that vanish, explode or are not finite."

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        judged: list[Judgement] = [FINE if present else None for present in block.score.present.tolist()]
        for row in np.flatnonzero(block.score.values < self.rules.poor_health):
            judged[row] = self._symptom(block, int(row))
        return judged

    def _symptom(self, block: "SampleBlock", row: int) -> Symptom:
        score = float(block.score.values[row])
        layers = [
            name for mask in (block.nonfinite, block.exploding, block.vanishing) for name in block.named(mask[row])
        ]
        return Symptom(
            seen=f"Gradient health poor ({score:.2f})",
            layers=tuple(dict.fromkeys(layers)),
            value=score,
            limit=self.rules.poor_health,
        )
