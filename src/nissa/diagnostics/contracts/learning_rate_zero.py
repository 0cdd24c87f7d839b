"""A learning rate of zero while steps continue, as after a schedule that was computed for fewer steps."""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Contract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import StepBlock


class LearningRateZero(Contract):
    """The learning rate of every parameter group is 0 at many steps in a row."""

    name = "learning_rate_zero"
    severity = Severity.ERROR
    advice = "Look at the schedule: its number of steps, its warm-up, and whether its step() is called per step or per epoch."
    observations = 20
    of = "consecutive steps"
    source = "PyTorch documentation, `torch.optim.lr_scheduler`; DeepFD benchmark, label `lr`"
    twin = "a first step at 0 of a warm-up, a last step at 0 of a schedule, a group with a learning rate of 0 beside others"
    explains = frozenset({"learning_rate_too_low", "sustained_plateau", "stalled_layer", "unchanging_weights"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Judge the steps of a block."""
        known = block.learning_rates.present.tolist()
        missed = block.missed.tolist()
        rows = zip(block.idle_rates.tolist(), known, missed, strict=True)
        return [self._judge(idle=idle, lost=lost > 0) if present else None for idle, present, lost in rows]

    def _judge(self, *, idle: bool, lost: bool) -> Judgement:
        if lost:
            self._streak.count(bad=False)
        if self._streak.count(bad=idle) < self.observations:
            return None if idle else FINE
        return Symptom(
            seen=f"Learning rate is 0 for {self._streak.length} steps",
            certainty=Certainty.CERTAIN,
            value=0.0,
            evidence=(f"steps={self._streak.length}",),
        )
