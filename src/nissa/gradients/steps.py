"""Step clock of one environment: time of the last step, current epoch, and inputs logged for the next step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nissa.gradients.logged_values import LoggedValues, value_now
from nissa.gradients.overhead import OverheadWindow
from nissa.hub.stopwatch import Stopwatch

if TYPE_CHECKING:
    import torch

    from nissa.events import SpanIds


@dataclass(slots=True)
class PendingStepInputs:
    """Values that the training loop logged for the next step.

    Args:
        total: Sum of the logged losses; on their device if they are not on the host.
        losses: Number of logged losses.
        clip_norm: Norm of all gradients before clipping.
        clip_limit: Maximum norm of the clipping.
        logged: Other values by their names in the row, see `nissa.gradients.logged_values`.
    """

    total: "torch.Tensor | float" = 0.0
    losses: int = 0
    clip_norm: "torch.Tensor | float | None" = None
    clip_limit: float | None = None
    logged: "dict[str, torch.Tensor | float]" = field(default_factory=dict)

    @property
    def loss(self) -> "torch.Tensor | float | None":
        """Mean of the logged losses; None if there is none."""
        return None if self.losses == 0 else self.total if self.losses == 1 else self.total / self.losses

    def over(self, other: "PendingStepInputs") -> "PendingStepInputs":
        """Return these values, completed with those of another object."""
        clipping, loss = self if self.clip_limit is not None else other, self if self.losses else other
        return PendingStepInputs(loss.total, loss.losses, clipping.clip_norm, clipping.clip_limit)


_MOST_NAMES: Final = 1_000
"""Maximum number of model names with pending inputs; beyond it the oldest inputs are dropped."""


class StepClock:
    """Step clock of one environment; written by the training thread only.

    Args:
        env_id: Id of the environment; None if the run has only one.
        now: Wall clock, nanoseconds since the Unix epoch.
        overhead: Overhead measurement; None creates a new one.
    """

    def __init__(self, env_id: str | None, now: Callable[[], int], overhead: OverheadWindow | None = None) -> None:
        self.env_id = env_id
        self.overhead = overhead or OverheadWindow(Stopwatch())
        self.stopwatch = self.overhead.stopwatch
        self.now = now
        self.epoch_ids: SpanIds | None = None
        self.last: int | None = None
        self.logged = LoggedValues()
        self._in_epoch = False
        self._pending: dict[str | None, PendingStepInputs] = {}

    def begin_epoch(self, ids: "SpanIds") -> None:
        """Enter an epoch; time between epochs does not count as step duration."""
        self.epoch_ids, self.last, self._in_epoch = ids, None, True

    def end_epoch(self) -> None:
        """Leave the epoch."""
        self._in_epoch = False
        self.last = None

    def log_loss(self, loss: "torch.Tensor | float", model: str | None = None, *, scale: float = 1.0) -> None:
        """Add a loss to the mean of the next step.

        A value on the host is read now, and one on a device is copied there, because the loop may change it in place.

        Args:
            loss: One number.
            model: Name of the watch; None means the first watch of the environment.
            scale: Factor for the loss.

        Raises:
            TypeError: The loss is not a number.
            ValueError: The loss has several elements.
        """
        now = value_now(loss, "log_loss()")
        scaled = now if scale == 1 else now * scale
        inputs = self._of(model)
        inputs.total = scaled + inputs.total if inputs.losses else scaled
        inputs.losses += 1

    def log_clipping(self, norm: "torch.Tensor | float", limit: float, model: str | None = None) -> None:
        """Store the norm before clipping for the next step.

        Raises:
            TypeError: The norm is not a number.
            ValueError: The norm has several elements.
        """
        now = value_now(norm, "log_clip()")
        inputs = self._of(model)
        inputs.clip_norm, inputs.clip_limit = now, limit

    @property
    def has_pending_inputs(self) -> bool:
        """Whether values were logged that no step has consumed."""
        return bool(self._pending)

    def take(self, model: str | None, *, primary: bool) -> PendingStepInputs:
        """Return and remove the values logged for the step that just ended."""
        named = self._pending.pop(model, None) if model is not None else None
        unnamed = self._pending.pop(None, None) if primary else None
        inputs = (named or PendingStepInputs()).over(unnamed or PendingStepInputs())
        inputs.logged = self.logged.take()
        return inputs

    def lap(self, at: int) -> float | None:
        """Return seconds since the previous step of the epoch; None for the first one or if the clock was set back."""
        previous, self.last = self.last, at
        return None if previous is None or not self._in_epoch or at < previous else (at - previous) / 1e9

    def forget(self, model: str | None) -> None:
        """Remove the pending values of a model that is no longer watched."""
        self._pending.pop(model, None)

    def _of(self, model: str | None) -> PendingStepInputs:
        inputs = self._pending.setdefault(model, PendingStepInputs())
        while len(self._pending) > _MOST_NAMES:
            del self._pending[next(iter(self._pending))]
        return inputs
