"""Which way of evaluating random directions is faster here, found by trying both."""

from typing import TYPE_CHECKING, Final

from nissa.diagnostics.sharpness.directions import bytes_of
from nissa.diagnostics.sharpness.vectorised import MAX_STACKED_BYTES, vectorisable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nissa.diagnostics.sharpness.measured import Sharpness

_TRIALS: Final = (False, True, True)
"""Whether each of the first measurements is vectorised; the first that is has to warm up."""


class Choosing:
    """Tries one direction after the other, then all together, and stays with what was faster.

    Neither wins everywhere: together is faster where a call costs more than what it computes, and slower where batched
    weights keep a convolution from its best algorithm.
    """

    def __init__(self) -> None:
        self._number = 0
        self._seconds: dict[bool, float] = {}

    def vectorised(self, model: "nn.Module", tensors: "list[Tensor]", samples: int) -> bool:
        """Whether to evaluate all directions together this time."""
        if samples * bytes_of(tensors) > MAX_STACKED_BYTES or not vectorisable(model):
            return False
        if self._number < len(_TRIALS):
            return _TRIALS[self._number]
        return self._seconds.get(True, float("inf")) < self._seconds.get(False, float("inf"))

    def took(self, found: "Sharpness", *, vectorised: bool) -> None:
        """Remember how long it took; what was cut short says nothing."""
        self._number += 1
        if found.complete:
            self._seconds[vectorised] = found.seconds
