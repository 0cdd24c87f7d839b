"""Gradients that grow and stay large.

Elements are compared with a threshold. The global norm is compared with its own median, since normal sizes differ between
networks, and with an absolute limit for networks that explode from the first step. The absolute limits are higher for a loss in
large units, such as one that is summed, see `nissa.diagnostics.loss_scale`.
Source: Pascanu et al., "On the difficulty of training recurrent neural networks" (2013).
"""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.baseline import Baseline
from nissa.diagnostics.loss_scale import LossScale
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock, StepBlock

_RISE: Final = 50.0
"""Ratio of the global norm to its median above which gradients explode; chosen on the tuning half of tests/pathologies."""


class ExplodingGradients(Rule):
    """Elements are above the threshold, or the global norm is above its limit or far above its median."""

    name = "exploding_gradients"
    anomaly = "exploding"
    advice = "Clip gradients, lower the learning rate, or check initialisation and normalisation."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._usual = Baseline(self.rules.window, self.rules.warm_up)
        self._scale = LossScale()

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Learn the scale of the loss; steps alone are not judged."""
        self._scale.steps(block)
        return [None] * len(block)

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        return [self._judge(block, row, *entry) for row, entry in enumerate(block.trusted_norms())]

    def _judge(self, block: "SampleBlock", row: int, missed: int, norm: float | None) -> Judgement:
        if missed:
            self._usual.lose(missed)
        if norm is None:
            return None
        absolute = self._scale.limit(self.rules.exploding_norm)
        if block.exploding[row].any() and (norm > absolute or absolute == self.rules.exploding_norm):
            layers = block.named(block.exploding[row])
            return Symptom(seen=f"Exploding gradients in {in_layers(layers)}", layers=layers, value=norm)
        limit = self._limit(absolute)
        if norm > limit:
            return Symptom(seen=f"Gradient norm {norm:.3g} is far above {limit:.3g}", value=norm, limit=limit)
        otherwise = FINE if self._usual.settled else None
        self._usual.feed(norm)
        return otherwise

    def _limit(self, absolute: float) -> float:
        if not self._usual.ready:
            return absolute
        rise = _RISE * max(self._usual.usual()[0], math.ulp(0.0))
        # A tiny norm, as after convergence, may rise again to its initial size without exploding.
        return min(absolute, max(rise, _RISE))
