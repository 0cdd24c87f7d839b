"""A training loss far above its recent past, for one step or a few.

The limit is the median of a window plus several robust deviations, similar to OLMo-core (mean plus six standard deviations
over 128 steps). After convergence a hard batch may be many deviations away without being a problem, so the rise must also
be a substantial part of the initial loss.
"""

from typing import TYPE_CHECKING, Final

from nissa.diagnostics.baseline import Baseline
from nissa.diagnostics.loss_tracker import Beginning
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.diagnostics.seed_findings import figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import StepBlock

_SHARE: Final = 0.5
"""Minimum rise above the median, as a share of the initial loss; chosen on the tuning half of tests/pathologies."""


class LossSpike(Rule):
    """The loss is far above those of the window."""

    name = "loss_spike"
    advice = "Look at the batch of that step; go back some 100 steps and skip its data if the loss does not recover."
    immediate = True

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._usual = Baseline(self.rules.window, self.rules.warm_up)
        self._beginning = Beginning(min(self.rules.warm_up, self.rules.window))
        self._flagged = 0

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Judge the steps of a block."""
        return [self._judge(missed, loss) for missed, loss in block.finite_losses()]

    def _judge(self, missed: int, loss: float | None) -> Judgement:
        if missed:
            self._beginning.lose(missed)
            self._usual.lose(missed)
        if loss is None or self._beginning.unknown:
            return None
        self._beginning.feed(loss)
        scale = self._beginning.level
        if scale is None or not self._usual.ready:
            otherwise = FINE if self._usual.settled else None
            self._usual.feed(loss)
            return otherwise
        median, deviation = self._usual.usual()
        limit = median + max(self.rules.spike_deviations * deviation, _SHARE * abs(scale))
        if loss <= limit:
            self._flagged = 0
            self._usual.feed(loss)
            return FINE
        self._flagged += 1
        if self._flagged > 2 * self.rules.recoveries:  # a lasting change is not a spike: start a new baseline
            self._usual = Baseline(self.rules.window, self.rules.warm_up)
        return Symptom(seen=f"Loss spike ({figure(median)} -> {figure(loss)})", value=loss, limit=limit)
