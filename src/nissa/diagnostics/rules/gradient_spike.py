"""A global gradient norm far above its recent past, for one sample or a few.

The logarithm of the norm, which is closer to a normal distribution than the norm, is compared with its median plus several
robust deviations, and with the maximum of the window.
Source: Kumar et al., "ZClip: Adaptive Spike Mitigation for LLM Pre-Training" (2504.02507); OLMo-core.
"""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.baseline import Baseline
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock

_RATIO: Final = 5.0
"""Minimum ratio to the largest norm of the window; chosen on the tuning half of tests/pathologies."""


class GradientSpike(Rule):
    """The global norm is far above those of the window."""

    name = "gradient_spike"
    anomaly = "spike"
    advice = "Look at the batch of that step, and clip gradients."
    immediate = True

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._usual = Baseline(self.rules.window, self.rules.warm_up)
        self._flagged = 0

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        return [self._judge(missed, norm) for missed, norm in block.trusted_norms()]

    def _judge(self, missed: int, norm: float | None) -> Judgement:
        if missed:
            self._usual.lose(missed)
        if not norm:
            return None
        size = math.log(norm)
        limit = self._limit()
        if size <= limit:
            otherwise = FINE if self._usual.settled else None
            self._flagged = 0
            self._usual.feed(size)
            return otherwise
        usual = math.exp(self._usual.usual()[0])
        self._flagged += 1
        if self._flagged > 2 * self.rules.recoveries:  # a lasting change is not a spike: start a new baseline
            self._usual = Baseline(self.rules.window, self.rules.warm_up)
        return Symptom(seen=f"Gradient spike ({usual:.3g} -> {norm:.3g})", value=norm, limit=math.exp(limit))

    def _limit(self) -> float:
        if not self._usual.ready:
            return math.inf
        median, deviation = self._usual.usual()
        beyond = float(self._usual.known.max()) + math.log(_RATIO)
        return max(median + self.rules.spike_deviations * deviation, beyond)
