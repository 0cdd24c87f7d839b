"""Gradient health as a single score; the formula is documented at `GradientHealth`.

Elements that are large only because the loss is in large units do not count, see `nissa.diagnostics.loss_scale`.
"""

from typing import TYPE_CHECKING

import numpy as np

from nissa.diagnostics.loss_scale import LossScale
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock, StepBlock

_VANISHING = 0.5
"""Share of the score that vanishing layers take, as in `GradientHealth`."""


class PoorGradientHealth(Rule):
    """The health score is below its limit."""

    name = "poor_gradient_health"
    advice = "Look at the layers that vanish, explode or are not finite."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._scale = LossScale()

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Learn the scale of the loss; steps alone are not judged."""
        self._scale.steps(block)
        return [None] * len(block)

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        judged: list[Judgement] = [FINE if present else None for present in block.score.present.tolist()]
        scores = self._scores(block)
        for row in np.flatnonzero(scores < self.rules.poor_health):
            judged[row] = self._symptom(block, int(row), float(scores[row]))
        return judged

    def _scores(self, block: "SampleBlock") -> "NDArray[np.float64]":
        """Return the scores, without large elements where the norm is usual for the loss."""
        limit = self._scale.limit(self.rules.exploding_norm)
        usual = ~block.broken & (block.global_norm.values <= limit) & (limit > self.rules.exploding_norm)
        without = 1 - _VANISHING * block.vanishing.sum(axis=1) / np.maximum(block.layers, 1)
        scores: NDArray[np.float64] = np.where(usual, without, block.score.values)
        return scores

    def _symptom(self, block: "SampleBlock", row: int, score: float) -> Symptom:
        masks = (block.nonfinite, block.exploding, block.vanishing)
        layers = [name for mask in masks for name in block.named(mask[row])]
        return Symptom(
            seen=f"Gradient health poor ({score:.2f})",
            layers=tuple(dict.fromkeys(layers)),
            value=score,
            limit=self.rules.poor_health,
        )
