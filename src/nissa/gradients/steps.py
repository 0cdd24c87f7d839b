"""Step clock of one environment: time of the last step, current epoch, and inputs logged for the next step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from nissa.gradients.logged_values import LoggedValues, value_now
from nissa.gradients.loss_order import LossOrder
from nissa.gradients.overhead import OverheadWindow
from nissa.gradients.phases import PhaseTimer
from nissa.gradients.skips import SkipCounts
from nissa.gradients.step_inputs import PendingStepInputs
from nissa.gradients.step_metadata import DeliveryProgress
from nissa.hub.stopwatch import Stopwatch

if TYPE_CHECKING:
    import torch

    from nissa.events import SpanIds
    from nissa.gradients.step_row import StepRow
    from nissa.hub.error_boundary import Guard


T = TypeVar("T")


@dataclass(slots=True)
class StepCounts:
    """Cumulative counts of the steps under one name; an optimizer that replaces another one continues them.

    Args:
        steps: Number of ``step()`` calls.
        samples: Number of sampled calls.
        unbegun: Number of steps that a scaler skipped without a call.
        skips: Calls that a fused optimizer skipped.
        delivered: Delivery progress of their rows.
        order: Order in which the training loop logs losses.
    """

    steps: int = 0
    samples: int = 0
    unbegun: int = 0
    skips: SkipCounts = field(default_factory=SkipCounts)
    delivered: DeliveryProgress = field(default_factory=DeliveryProgress)
    order: LossOrder = field(default_factory=LossOrder)


_MOST_NAMES: Final = 1_000
"""Maximum number of model names with pending inputs, counts or waiting rows; beyond it the oldest are dropped or sent."""


class StepClock:
    """Step clock of one environment; written by the training thread only.

    Args:
        env_id: Id of the environment; None if the run has only one.
        now: Wall clock, nanoseconds since the Unix epoch.
        overhead: Overhead measurement; None creates a new one.
        phases: Guard of the hooks that measure the phases of each step; None measures none.

    Attributes:
        phases: Timer of the phases; None measures none.
    """

    def __init__(
        self,
        env_id: str | None,
        now: Callable[[], int],
        overhead: OverheadWindow | None = None,
        *,
        phases: "Guard | None" = None,
    ) -> None:
        self.env_id = env_id
        self.phases = None if phases is None else PhaseTimer(phases)
        self.overhead = overhead or OverheadWindow(Stopwatch())
        self.stopwatch = self.overhead.stopwatch
        self.now = now
        self.epoch_ids: SpanIds | None = None
        self.last: int | None = None
        self.logged = LoggedValues()
        self._interrupted = False
        self._pending: dict[str | None, PendingStepInputs] = {}
        self._counts: dict[str | None, StepCounts] = {}
        # Row of the last step of each model, if it waits for a loss; that of the first watch also under None.
        self._waiting: dict[str | None, tuple[StepRow, LossOrder]] = {}

    def counts(self, model: str | None) -> StepCounts:
        """Return the counts of the steps under a name, which continue when another optimizer is watched under it."""
        return _bounded(self._counts, model, StepCounts)

    def begin_epoch(self, ids: "SpanIds") -> None:
        """Enter an epoch; time between epochs does not count as step duration."""
        for model in list(self._waiting):  # a loss that follows is one of the new epoch
            self.release(model, primary=False)
        self.epoch_ids, self.last = ids, None

    def end_epoch(self) -> None:
        """Leave the epoch."""
        self.last = None

    def interrupt(self) -> None:
        """Leave the next step without a duration, because a validation took part of the time since the last one."""
        self._interrupted = True

    def log_loss(self, loss: "torch.Tensor | float", model: str | None = None, *, scale: float = 1.0) -> None:
        """Add a loss to the mean of its step: the next one, or the previous one if the loop logs losses after steps.

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
        row, order = self._waiting.get(model, (None, None))
        if row is None or order is None:
            self._of(model).add(scaled)
        elif row.skipped:
            return  # like the loss of every skipped step
        elif not row.take():
            inputs = self._of(model)
            inputs.add(scaled)
            inputs.late = bool(order.after)
        elif order.logged_after():
            row.add_loss(scaled)
        else:
            row.hold()
            self._of(model).add(scaled)

    def submit(self, row: "StepRow", order: LossOrder, model: str | None, *, primary: bool) -> None:
        """Send the row of a step, or hold it back for a loss until the next step."""
        if row.waits:
            row.hold()
        self.expect(row, order, model, primary=primary)
        if not row.waits:
            row.send()

    def expect(self, row: "StepRow", order: LossOrder, model: str | None, *, primary: bool) -> None:
        """Assign losses that follow to the step of a row, if it waits for one."""
        self.release(model, primary=primary)
        # A loss that is logged after a skipped step belongs to it, and is dropped like the step.
        if row.waits or (row.skipped and order.after):
            self._waiting[model] = row, order
            if primary:
                self._waiting[None] = row, order
        while len(self._waiting) > _MOST_NAMES:
            self.release(next(iter(self._waiting)), primary=False)

    def release(self, model: str | None, *, primary: bool) -> None:
        """Send the waiting row of a model's previous step."""
        row, _ = self._waiting.pop(model, (None, None))
        if primary:
            self._waiting.pop(None, None)
        if row is not None and row.take():
            row.send()

    def log_backward(self, value: "torch.Tensor", model: str | None = None) -> None:
        """Store the sum of the values that ``backward()`` was called on for the next step.

        Raises:
            TypeError: The value is not a number.
            ValueError: The value has several elements.
        """
        self._of(model).backward = value_now(value, "backward()")

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
        """Return and remove the values that were logged before the end of the step that just ended."""
        named = self._pending.pop(model, None) if model is not None else None
        unnamed = self._pending.pop(None, None) if primary else None
        inputs = (named or PendingStepInputs()).over(unnamed or PendingStepInputs())
        inputs.logged = self.logged.take()
        return inputs

    def lap(self, at: int) -> float | None:
        """Return seconds since the previous step; None for the first one, the first one of an epoch or after a validation.

        Also None if the clock was set back.
        """
        previous, self.last = self.last, at
        interrupted, self._interrupted = self._interrupted, False
        return None if previous is None or interrupted or at < previous else (at - previous) / 1e9

    def take_phases(self, duration: float | None, *, in_backward: bool) -> dict[str, float]:
        """Return the seconds of each phase of the step that just ended; none for a step without a duration.

        Args:
            duration: Seconds since the previous step, of `lap`.
            in_backward: Whether the step is made during a backward pass, which continues after it.
        """
        if self.phases is None:
            return {}
        used = duration is not None
        phases = self.phases.take(used=used, keep=in_backward)
        return phases if used else {}

    def forget(self, model: str | None) -> None:
        """Remove the pending values of a model that is no longer watched."""
        self._pending.pop(model, None)

    def _of(self, model: str | None) -> PendingStepInputs:
        return _bounded(self._pending, model, PendingStepInputs)


def _bounded(by_name: dict[str | None, T], name: str | None, make: Callable[[], T]) -> T:
    """Return the entry of a name, created at its first use; drop the oldest above the maximum number of names."""
    entry = by_name.setdefault(name, make()) if name not in by_name else by_name[name]
    while len(by_name) > _MOST_NAMES:
        del by_name[next(iter(by_name))]
    return entry
