"""Gradients in float16 that are all zero, because they are too small for this type and the loss is not scaled.

The smallest positive float16 is 6e-8; gradients of a mean loss are often smaller.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Contract
from nissa.diagnostics.contracts.zero_gradients import ZeroGradients
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock, StepBlock


class HalfPrecisionUnderflow(Contract):
    """All gradients are float16, and were zero from the beginning."""

    name = "half_precision_underflow"
    severity = Severity.ERROR
    advice = "Scale the loss with torch.amp.GradScaler and keep float32 weights (autocast), or use bfloat16."
    observations = 3
    of = "sampled steps from the beginning"
    source = 'Micikevicius et al., "Mixed Precision Training" (2018)'
    twin = "float16 gradients of which some are zero, and scaled ones"
    explains = frozenset(
        {
            "gradients_zeroed_before_step",
            "vanishing_gradients",
            "dead_units",
            "poor_gradient_health",
            "stalled_layer",
            "learning_rate_too_low",
            "sustained_plateau",
        }
    )

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._zeros = ZeroGradients()

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Note the type of the gradients; steps alone are not judged."""
        self._zeros.steps(block)
        return [None] * len(block)

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        counts = self._zeros.samples(block)
        if not self._zeros.half:
            return [None] * len(block)
        return [FINE if not count else _symptom(count) if count >= self.observations else None for count in counts]


def _symptom(samples: int) -> Symptom:
    return Symptom(
        seen=f"All float16 gradients underflowed to zero in all {samples} samples",
        certainty=Certainty.LIKELY,
        evidence=("type=float16", "gradients=0"),
        value=samples,
    )
