"""A loss that is NaN or infinite, so that its gradients are useless.

Source: the check that trainers make in each step, for example torchtitan.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.diagnostics.blocks import StepBlock
    from nissa.diagnostics.snapshot import EpochSnapshot


class NonfiniteLoss(Rule):
    """The training or validation loss is NaN or infinite."""

    name = "nonfinite_loss"
    severity = Severity.ERROR
    advice = (
        "Look for a division by zero, a logarithm of zero or an overflow; lower the learning rate, or clip gradients."
    )
    immediate = True

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Judge the training losses of a block."""
        entries = zip(block.losses.values.tolist(), block.losses.present.tolist(), strict=True)
        return [_judge("Training loss", loss) if present else None for loss, present in entries]

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge the validation loss."""
        return None if snapshot.validation_loss is None else _judge("Validation loss", snapshot.validation_loss)


def _judge(what: str, loss: float) -> Judgement:
    if math.isfinite(loss):
        return FINE
    return Symptom(
        seen=f"{what} is {'NaN' if math.isnan(loss) else 'infinite'}", certainty=Certainty.CERTAIN, value=loss
    )
