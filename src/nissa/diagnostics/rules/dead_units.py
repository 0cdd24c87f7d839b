"""Units that no example activates any more, so that their gradients are exactly zero.

Zeros alone are not sufficient, since embeddings and constant zero inputs cause them too. A layer is therefore compared with
its own past. Only biases, whose gradients do not depend on inputs, are judged by their absolute share of zeros.
Source: Lu et al., "Dying ReLU and Initialization" (2019); Sokar et al., "The Dormant Neuron Phenomenon" (2023).
"""

from typing import TYPE_CHECKING, Final

from nissa.diagnostics.baseline import LayerBaseline
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock

_RISE: Final = 0.4
"""Minimum rise of a layer's share of zeros above its median; chosen on the tuning half of tests/pathologies."""


class DeadUnits(Rule):
    """Nearly all of a layer's gradient is exactly zero, and was not before, or belongs to a bias."""

    name = "dead_units"
    anomaly = "dead"
    advice = "Lower the learning rate, use a leaky activation, or initialise the layers named anew."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._usual = LayerBaseline(self.rules.window, self.rules.warm_up)

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        missed = block.missed.tolist()
        return [self._judge(block, row, lost) for row, lost in enumerate(missed)]

    def _judge(self, block: "SampleBlock", row: int, missed: int) -> Judgement:
        if missed:
            self._usual.lose(missed)
        zeros = block.zero_fraction[row]
        if not len(zeros) or block.broken[row]:  # NaN and infinite elements are neither zero nor evidence of live units
            return None
        otherwise = FINE if self._usual.settled else None
        usual = self._usual.median(block.names)
        risen = zeros - usual >= _RISE
        dead = (zeros >= self.rules.dead_fraction) & (risen | block.biases | (zeros >= 1))
        self._usual.feed(block.names, zeros, ~dead & ~risen)
        if not dead.any():
            return otherwise
        layers = block.named(dead)
        return Symptom(
            seen=f"Dead units in {in_layers(layers)}",
            layers=layers,
            value=float(zeros[dead].max()),
            limit=self.rules.dead_fraction,
        )
