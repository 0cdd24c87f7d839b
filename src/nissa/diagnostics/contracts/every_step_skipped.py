"""Loss scaling that skips every step, because gradients overflow at any scale.

A scaler begins with a large scale and halves it at each skipped step. After twenty of them in a row, the scale is not the cause:
loss or weights are not finite.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Contract
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SkipBlock, StepBlock


class EveryStepSkipped(Contract):
    """Many steps in a row were skipped."""

    name = "every_step_skipped"
    severity = Severity.ERROR
    advice = "Look for NaN in inputs, loss and weights; run one step without autocast, or with bfloat16, which needs no scaler."
    observations = 20
    of = "consecutive calls of the scaler"
    source = 'PyTorch documentation, `torch.amp.GradScaler`; Micikevicius et al., "Mixed Precision Training" (2018)'
    twin = "the first steps of a scaler, which skips up to a dozen until its scale fits, and single skipped steps later"
    one_flag = True
    explains = frozenset({"nonfinite_gradients", "sustained_plateau", "learning_rate_too_low", "stalled_layer"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._after: int | None = None
        self._skipped = 0

    def skips(self, block: "SkipBlock") -> "Sequence[Judgement]":
        """Judge skipped steps."""
        return [self._judge(*entry) for entry in zip(block.steps.tolist(), block.counts.tolist(), strict=True)]

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Judge completed steps, which end a series of skipped ones."""
        return [FINE if self._skipped else None] * len(block)

    def _judge(self, steps: int, count: int) -> Judgement:
        self._skipped = self._skipped + count if steps == self._after else count
        self._after = steps
        if self._skipped < self.observations:
            return None
        return Symptom(
            seen=f"Loss scaling skipped {self._skipped} steps in a row",
            certainty=Certainty.CERTAIN,
            value=self._skipped,
            limit=self.observations,
        )
