"""The clock of one environment's steps: when the last one ended, in which epoch, and what was said of the next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nissa.gradients.overhead import OverheadWindow
from nissa.hub.stopwatch import Stopwatch

if TYPE_CHECKING:
    import torch

    from nissa.events import SpanIds


@dataclass(slots=True)
class PendingStepInputs:
    """What the training loop says of the step that follows.

    Args:
        loss: Its loss.
        clip_norm: Norm of all gradients before they were clipped.
        clip_limit: What they were clipped to.
    """

    loss: "torch.Tensor | float | None" = None
    clip_norm: "torch.Tensor | float | None" = None
    clip_limit: float | None = None

    def over(self, other: "PendingStepInputs") -> "PendingStepInputs":
        """Return what is said here, and of the rest what another says."""
        clipping = self if self.clip_limit is not None else other
        return PendingStepInputs(
            other.loss if self.loss is None else self.loss, clipping.clip_norm, clipping.clip_limit
        )


_MOST_NAMES: Final = 1_000
"""Names of models for which inputs are kept; beyond it the oldest are dropped, which no step has taken."""


class StepClock:
    """Written by the training thread only.

    Args:
        env_id: The environment, None where there is only one.
        now: Wall clock, nanoseconds since the Unix epoch.
        overhead: What watching costs; a new one where None.
    """

    def __init__(self, env_id: str | None, now: Callable[[], int], overhead: OverheadWindow | None = None) -> None:
        self.env_id = env_id
        self.overhead = overhead or OverheadWindow(Stopwatch())
        self.stopwatch = self.overhead.stopwatch
        self.now = now
        self.epoch_ids: SpanIds | None = None
        self.last: int | None = None
        self._in_epoch = False
        self._pending: dict[str | None, PendingStepInputs] = {}

    def begin_epoch(self, ids: "SpanIds") -> None:
        """Enter an epoch; time between epochs is no step's duration."""
        self.epoch_ids, self.last, self._in_epoch = ids, None, True

    def end_epoch(self) -> None:
        """Leave the epoch."""
        self._in_epoch = False
        self.last = None

    def log_loss(self, loss: "torch.Tensor | float", model: str | None = None) -> None:
        """Keep the loss for the step that follows; of several the last counts.

        Args:
            loss: One number.
            model: Name of the watch whose step is meant; the environment's first one where it is not given.
        """
        # Detached: a loss that no step follows must not keep the graph and the network behind it alive.
        self._of(model).loss = loss.detach() if hasattr(loss, "detach") else loss

    def log_clipping(self, norm: "torch.Tensor | float", limit: float, model: str | None = None) -> None:
        """Keep the norm before clipping for the step that follows."""
        inputs = self._of(model)
        inputs.clip_norm, inputs.clip_limit = norm.detach() if hasattr(norm, "detach") else norm, limit

    def take(self, model: str | None, *, primary: bool) -> PendingStepInputs:
        """Return what was said of the step that just happened, once."""
        named = self._pending.pop(model, None) if model is not None else None
        unnamed = self._pending.pop(None, None) if primary else None
        return (named or PendingStepInputs()).over(unnamed or PendingStepInputs())

    def lap(self, at: int) -> float | None:
        """Return seconds since the previous step of this epoch; None for its first, and where the clock was set back."""
        previous, self.last = self.last, at
        return None if previous is None or not self._in_epoch or at < previous else (at - previous) / 1e9

    def forget(self, model: str | None) -> None:
        """Drop what was said of the next step of a model that is no longer watched."""
        self._pending.pop(model, None)

    def _of(self, model: str | None) -> PendingStepInputs:
        inputs = self._pending.setdefault(model, PendingStepInputs())
        while len(self._pending) > _MOST_NAMES:
            del self._pending[next(iter(self._pending))]
        return inputs
