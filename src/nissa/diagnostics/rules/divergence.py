"""A training loss that rises by a large part of the progress so far, or above its initial level.

Source: the spiky loss of Megatron-LM (a multiple of the initial loss) and the rewinding of PaLM (Chowdhery et al., 2022).
Here the loss is smoothed, so that a single batch does not count as divergence, and compared with the progress so far.
"""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.loss_tracker import LossTracker
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom
from nissa.diagnostics.seed_findings import figure
from nissa.events import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import StepBlock

_SHARE: Final = 0.5
"""Share of the progress that must be lost, and of the initial loss that counts as minimum progress; chosen on the tuning half of tests/pathologies."""


class Divergence(Rule):
    """The smoothed loss is well above its best value."""

    name = "divergence"
    severity = Severity.ERROR
    advice = "Go back to a checkpoint and lower the learning rate, warm it up longer, or clip gradients."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._tracker = LossTracker(self.rules.warm_up)

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Judge the steps of a block."""
        return [self._judge(missed, loss) for missed, loss in block.finite_losses()]

    def _judge(self, missed: int, loss: float | None) -> Judgement:
        tracker = self._tracker
        if missed:
            tracker.lose(missed)
        if loss is None:
            return None
        tracker.feed(loss)
        first = tracker.beginning.level
        if tracker.beginning.unknown or math.isnan(tracker.smooth):
            return None
        if first is None:
            return FINE
        gained = max(first - tracker.best, 0.0)
        rise = _SHARE * max(gained, _SHARE * abs(first))
        limit = tracker.best + rise
        if tracker.smooth > limit:
            return Symptom(
                seen=f"Loss diverges ({figure(tracker.best)} -> {figure(tracker.smooth)})",
                value=tracker.smooth,
                limit=limit,
            )
        return FINE if tracker.smooth < tracker.best + rise / 2 else UNCLEAR
