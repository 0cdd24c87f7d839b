"""A training loss that loses what training had gained, or rises above where it began.

Source: the loss that Megatron-LM calls spiky (a multiple of what it was at first) and the rewinding of PaLM (Chowdhery et al.,
2022); here the loss is smoothed, so that one batch is no divergence, and measured by what was gained.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.course import Course
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from nissa.hub.measurements import StepMeasured
    from nissa.profiles.sections import DiagnosticsConfig


class Divergence(Rule):
    """A smoothed loss well above its best."""

    name = "divergence"
    severity = Severity.ERROR
    advice = "Go back to a checkpoint and lower the learning rate, warm it up longer, or clip gradients."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._course = Course(self.rules.warm_up)

    def step(self, step: "StepMeasured") -> Judgement:
        """Judge a step."""
        course = self._course
        if step.loss is None or not math.isfinite(step.loss):
            return None
        course.feed(step.loss)
        if course.first is None:
            return FINE
        gained = max(course.first - course.best, 0.0)
        rise = self.rules.divergence_share * max(gained, self.rules.divergence_share * abs(course.first))
        limit = course.best + rise
        if course.smooth > limit:
            return Symptom(
                seen=f"Loss diverges ({course.best:.3f} -> {course.smooth:.3f})", value=course.smooth, limit=limit
            )
        return FINE if course.smooth < course.best + rise / 2 else UNCLEAR
