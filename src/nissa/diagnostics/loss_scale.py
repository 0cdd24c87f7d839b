"""Scale of a loss and its gradients, so that limits do not depend on units.

A loss that is summed instead of averaged, or targets in cents instead of euros, multiply loss and gradients by the same number.
The norm of the gradients is therefore compared with ``loss / norm of the weights``: their ratio does not depend on the units, nor
on a factor that moves from one layer to the next. For usual networks it is between 1 and 20.
"""

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nissa.diagnostics.blocks import StepBlock

USUAL: Final = 50.0
"""Ratio up to which a gradient norm is usual for the scale of its loss; chosen on the tuning half of tests/pathologies, whose
exploding networks are above 150."""


class LossScale:
    """Natural size of the gradient norm of one watch, from its first loss and its first weights."""

    def __init__(self) -> None:
        self._natural: float | None = None
        self._decided = False

    def steps(self, block: "StepBlock") -> None:
        """Look at the first step of the watch; if it was lost, no norm is called unusual."""
        if self._decided:
            return
        self._decided = True
        norm = block.signals[0].get("weight_norm")
        if block.missed[0]:
            self._natural = math.inf
        elif block.losses.finite[0] and norm and math.isfinite(norm):
            self._natural = abs(float(block.losses.values[0])) / norm

    def limit(self, absolute: float) -> float:
        """Return a limit of the norm: an absolute one, or a higher one if the loss is large."""
        return absolute if self._natural is None else max(absolute, USUAL * self._natural)
