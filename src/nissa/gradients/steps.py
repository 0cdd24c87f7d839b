"""The clock of one environment's steps: when the last one ended, in which epoch, and with what loss."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from nissa.events import SpanIds


class StepClock:
    """Written by the training thread only.

    Args:
        env_id: The environment, None where there is only one.
        now: Wall clock, nanoseconds since the Unix epoch.
    """

    def __init__(self, env_id: str | None, now: Callable[[], int]) -> None:
        self.env_id = env_id
        self.now = now
        self.epoch_ids: SpanIds | None = None
        self.last: int | None = None
        self._in_epoch = False
        self._loss: torch.Tensor | float | None = None

    def begin_epoch(self, ids: "SpanIds") -> None:
        """Enter an epoch; time between epochs is no step's duration."""
        self.epoch_ids, self.last, self._in_epoch = ids, None, True

    def end_epoch(self) -> None:
        """Leave the epoch."""
        self._in_epoch = False
        self.last = None

    def log_loss(self, loss: "torch.Tensor | float") -> None:
        """Keep the loss for the step that follows; of several the last counts."""
        # Detached: a loss that no step follows must not keep the graph and the network behind it alive.
        self._loss = loss.detach() if hasattr(loss, "detach") else loss

    def take_loss(self) -> "torch.Tensor | float | None":
        """Return the loss of the step that just happened, once."""
        loss, self._loss = self._loss, None
        return loss

    def lap(self, at: int) -> float | None:
        """Return seconds since the previous step of this epoch; None for its first, and where the clock was set back."""
        previous, self.last = self.last, at
        return None if previous is None or not self._in_epoch or at < previous else (at - previous) / 1e9
