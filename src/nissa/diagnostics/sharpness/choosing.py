"""Choice between sequential and vectorised evaluation of random directions, by timing both."""

from typing import TYPE_CHECKING, Final

from nissa.diagnostics.sharpness.directions import bytes_of
from nissa.diagnostics.sharpness.vectorised import MAX_STACKED_BYTES, vectorisable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nissa.diagnostics.sharpness.measured import Sharpness

_TRIALS: Final = (False, True, True)
"""Vectorisation of the first measurements; the first vectorised one is a warm-up."""


class Choosing:
    """Selector of sequential or vectorised evaluation, which times both in the first measurements.

    Vectorised evaluation is faster if the overhead of a call exceeds its computation. It is slower if batched weights
    prevent a convolution from using its best algorithm.
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
        """Record the duration of a measurement, unless the budget cut it short."""
        self._number += 1
        if found.complete:
            self._seconds[vectorised] = found.seconds
