"""A clipping threshold so low that it makes every step tiny.

The factor of clipping alone is no fault, since adaptive optimizers do not depend on the scale of gradients: the loss must not
fall meanwhile.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.contracts.contract import Contract
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.loss_tracker import LossTracker
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import StepBlock

_FACTOR: Final = 0.01
_PROGRESS: Final = 0.1
"""Share of the initial loss by which it must fall; the same as in ``learning_rate_too_low``."""


class ClippingTooLow(Contract):
    """Clipping multiplied all gradients by less than 1/100 at many steps in a row, and the loss hardly falls."""

    name = "clipping_too_low"
    advice = "Raise the threshold to about the usual norm of the gradients, so that only outliers are clipped."
    observations = 100
    of = "consecutive steps"
    source = "Pascanu et al. (2013), who set the threshold from average norms; TrainCheck (Jiang et al., OSDI 2025)"
    twin = (
        "clipping that is usual for language models and recurrent networks, and any clipping with which the loss falls"
    )
    explains = frozenset({"learning_rate_too_low", "sustained_plateau"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._tracker = LossTracker(self.rules.warm_up)
        self._clipped = 0

    def steps(self, block: "StepBlock") -> Sequence[Judgement]:
        """Judge the steps of a block."""
        factors = block.clip_factors.values.tolist()
        return [
            self._judge(missed, loss, factor)
            for (missed, loss), factor in zip(block.finite_losses(), factors, strict=True)
        ]

    def _judge(self, missed: int, loss: float | None, factor: float) -> Judgement:
        tracker = self._tracker
        if missed:
            tracker.lose(missed)
            self._clipped = 0
        if loss is not None:
            tracker.feed(loss)
        if math.isnan(factor):
            return None
        self._clipped = self._clipped + 1 if factor <= _FACTOR else 0
        first = tracker.beginning.level
        if not self._clipped:
            return FINE
        if self._clipped < self.observations or first is None or math.isnan(tracker.smooth):
            return None
        if first - tracker.smooth >= _PROGRESS * abs(first):
            return FINE
        return Symptom(
            seen=f"Clipping leaves {factor:.2%} of the gradients at each of {self._clipped} steps, and the loss hardly falls",
            certainty=Certainty.LIKELY,
            value=factor,
            limit=_FACTOR,
            evidence=(f"loss={first:.4g} -> {tracker.smooth:.4g}",),
        )
