"""Steps so large that the first of them throw the loss far above where it began, or that it jumps about and does not fall.

Source: what a rate beyond the stable one does to a quadratic (LeCun et al., "Efficient BackProp", 1998); the margin of stability
itself is judged where sharpness is measured.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.loss_tracker import LossTracker
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import StepBlock

_HITS = 2


class LearningRateTooHigh(Rule):
    """A loss that the first steps multiply, or one that changes much from step to step without progress."""

    name = "learning_rate_too_high"
    advice = "Lower the learning rate by a factor of 3 to 10, or warm it up."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._course = LossTracker(self.rules.warm_up)
        self._hits = 0
        self._worst = -math.inf

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Judge the steps of a block."""
        return [self._judge(missed, loss) for missed, loss in block.finite_losses()]

    def _judge(self, missed: int, loss: float | None) -> Judgement:
        course = self._course
        if missed:
            course.lose(missed)
        if loss is None:
            return None
        course.feed(loss)
        if not course.beginning.over or course.seen <= self.rules.judged_after:
            return self._early(loss)
        first = course.beginning.level
        if first is None or math.isnan(course.smooth) or math.isnan(course.jump):
            return None
        start = max(abs(first), math.ulp(0.0))
        gained = first - course.smooth
        if gained < self.rules.slow_progress * start and course.jump > self.rules.oscillation * start:
            return Symptom(
                seen=f"Loss jumps by {course.jump:.3f} a step and does not fall",
                value=course.jump / start,
                limit=self.rules.oscillation,
            )
        return FINE if gained > 2 * self.rules.slow_progress * start else UNCLEAR

    def _early(self, loss: float) -> Judgement:
        first = self._course.beginning.start
        if first is None:  # a later loss is no beginning
            return None
        start = max(abs(first), math.ulp(0.0))
        limit = self.rules.first_steps_rise * start
        self._hits += loss > limit
        self._worst = max(self._worst, loss)
        # One batch may be odd. Afterwards the loss need not stay there, but does not soon come below where it began.
        if self._hits >= _HITS and loss >= start:
            seen = f"The first steps raised the loss ({start:.3f} -> {self._worst:.3f})"
            return Symptom(seen=seen, certainty=Certainty.CERTAIN, value=self._worst, limit=limit)
        return FINE if loss < start else UNCLEAR
