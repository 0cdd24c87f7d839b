"""Losses of the backward passes of a step."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class StepLosses:
    """Sum and number of the losses since the last step, copied at the moment of the call and not waited for."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None
        self.count = 0

    def add(self, loss: "torch.Tensor") -> None:
        """Add the loss of one backward pass."""
        value = loss.detach()
        self._total = value.clone() if self._total is None else self._total + value
        self.count += 1

    def take(self) -> "torch.Tensor | None":
        """Return the sum of the losses and forget them; None without any."""
        total, self._total, self.count = self._total, None, 0
        return total
