"""Steps so large that the first ones raise the loss far above its start, or that it oscillates without falling.

Source: gradient descent on a quadratic above the stable learning rate (LeCun et al., "Efficient BackProp", 1998). The
stability margin itself is judged by the rule ``sharp_minimum``.
"""

import math
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.loss_tracker import LossTracker
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom
from nissa.diagnostics.seed_findings import figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import StepBlock

_RISE: Final = 4.0
"""Ratio of an early loss to the first one above which the learning rate is too high; chosen on the tuning half of tests/pathologies."""

_HITS = 2

_PROGRESS: Final = 0.1
"""Share of the initial loss by which it must fall; the same as in ``learning_rate_too_low``, chosen on the tuning half of tests/pathologies."""

_OSCILLATION: Final = 0.2
"""Median change from step to step, as a share of the initial loss, above which it oscillates; chosen on the tuning half of tests/pathologies."""


class LearningRateTooHigh(Rule):
    """The first steps multiply the loss, or it changes much from step to step without progress."""

    name = "learning_rate_too_high"
    advice = "Lower the learning rate by a factor of 3 to 10, or warm it up."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._tracker = LossTracker(self.rules.warm_up)
        self._hits = 0
        self._worst = -math.inf

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
        if not tracker.beginning.over or tracker.seen <= self.rules.judged_after:
            return self._early(loss)
        first = tracker.beginning.level
        if first is None or math.isnan(tracker.smooth) or math.isnan(tracker.jump):
            return None
        start = max(abs(first), math.ulp(0.0))
        gained = first - tracker.smooth
        if gained < _PROGRESS * start and tracker.jump > _OSCILLATION * start:
            return Symptom(
                seen=f"Loss jumps by {figure(tracker.jump)} a step and does not fall",
                value=tracker.jump / start,
                limit=_OSCILLATION,
            )
        return FINE if gained > 2 * _PROGRESS * start else UNCLEAR

    def _early(self, loss: float) -> Judgement:
        first = self._tracker.beginning.start
        if first is None:  # the first loss was lost, and a later one cannot replace it
            return None
        start = max(abs(first), math.ulp(0.0))
        limit = _RISE * start
        self._hits += loss > limit
        self._worst = max(self._worst, loss)
        # Require several hits, since one batch may be an outlier. The loss may fall again, but stays above its start for long.
        if self._hits >= _HITS and loss >= start:
            seen = f"The first steps raised the loss ({figure(start)} -> {figure(self._worst)})"
            return Symptom(seen=seen, certainty=Certainty.CERTAIN, value=self._worst, limit=limit)
        return FINE if loss < start else UNCLEAR
