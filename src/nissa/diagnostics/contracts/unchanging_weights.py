"""Weights that stay as they are although they have gradients and a learning rate.

The update is lost to rounding (a small learning rate with bfloat16 weights), the optimizer changes a copy, or something writes
the old weights back within the step.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig

_SHARE = 0.95
"""Share of unchanged elements from which weights stand still; a step of float32 weights changes nearly all of them."""


class UnchangingWeights(ProgramContract):
    """Steps leave nearly all elements with a gradient unchanged, bit by bit."""

    name = "unchanging_weights"
    severity = Severity.ERROR
    advice = (
        "Check that the optimizer changes these very parameters. With bfloat16 or float16 weights, keep float32 copies of them "
        "(mixed precision) or raise the learning rate: updates below 1/256 of a bfloat16 weight are rounded away."
    )
    complete = True
    observations = 5
    source = "TrainCheck (Jiang et al., OSDI 2025); SageMaker Debugger, rule UnchangedTensor; Collage (Yu et al., 2024)"
    twin = "small learning rates in float32, sparse gradients, one group without a learning rate"
    explains = frozenset({"learning_rate_too_low", "sustained_plateau", "stalled_layer"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        active, still = seen.signals.get("active"), seen.signals.get("still")
        if not active or still is None or seen.idle:
            return None
        share = still / active
        if self._streak.count(bad=share >= _SHARE) < self.observations:
            return FINE if share < _SHARE / 2 else None
        return Symptom(
            seen=f"Weights do not change: steps leave {share:.0%} of the examined elements as they are",
            certainty=Certainty.CERTAIN,
            value=share,
            limit=_SHARE,
            evidence=(f"elements={active:.0f}", f"observations={self._streak.length}"),
        )
