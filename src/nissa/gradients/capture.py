"""Sees every ``optimizer.step()`` through the optimizer's own hooks, and what gradients it used.

Hooks of the instance, never of the class: an optimizer whose class inherits ``step`` from another is seen once.
"""

import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from nissa.errors import WatchError
from nissa.gradients.collector import Packed, pack
from nissa.gradients.readback import Reader, Transfer
from nissa.gradients.selection import Selection, names_of

if TYPE_CHECKING:
    from types import FrameType

    from nissa.events import SpanIds
    from nissa.gradients.steps import StepClock
    from nissa.hub.containment import Containment
    from nissa.kernels.moments import Layout, Thresholds

Hook = TypeVar("Hook", bound=Callable[..., Any])

_logger = logging.getLogger("nissa")

_STEP: Final = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__
"""Of torch's wrapper around every ``step``, which runs the hooks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNote:
    """What the host knows about a step while its numbers are on their way.

    Args:
        packed: The gradients' statistics, None where the step was not sampled.
        loss: The loss where it was a number already.
        loss_follows: The transfer's last array is the loss.
        primary: Whether the optimizer is the first that its environment watches, whose steps are *the* steps.
    """

    env_id: str | None
    model_name: str | None
    step: int
    primary: bool
    time_unix_nano: int
    duration: float | None
    learning_rate: float | None
    epoch_ids: "SpanIds | None"
    packed: Packed | None
    loss: float | None
    loss_follows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which steps are sampled, and what is measured then.

    Args:
        every_n_steps: Step numbers that it divides are sampled; 0 samples none.
    """

    every_n_steps: int
    selection: Selection
    layout: "Layout"
    thresholds: "Thresholds"

    def wants(self, step: int) -> bool:
        """Whether a step is sampled: a function of its number alone, so that all ranks agree."""
        return self.every_n_steps > 0 and step % self.every_n_steps == 0


class Watch:
    """A watched optimizer; returned by ``run.watch``.

    Attributes:
        steps: How many steps it made since it is watched.
        name: The model's name, None where there is only one.
        primary: Whether its steps are the steps of its environment.
    """

    def __init__(  # noqa: PLR0913 - a value object with a life; every argument is a collaborator
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        name: str | None,
        primary: bool,
        sampling: Sampling,
        clock: "StepClock",
        reader: Reader[StepNote],
        containment: "Containment",
        on_close: "Callable[[Watch], None]",
    ) -> None:
        self.steps = 0
        self.name = name
        self.primary = primary
        self._model = weakref.ref(model)
        self._sampling = sampling
        self._clock = clock
        self._reader = reader
        self._containment = containment
        self._packed: Packed | None = None
        self._inside = self._nested = self._orphaned = False
        self._optimizer_id = id(optimizer)
        self._gone = weakref.finalize(optimizer, on_close, self)
        self._gone.atexit = False
        # The optimizer holds the hooks and the hooks hold us: nothing of ours keeps model or optimizer alive.
        self._hooks = [
            optimizer.register_step_pre_hook(_untraced(self._before)),
            optimizer.register_step_post_hook(_untraced(self._after)),
        ]

    @property
    def key(self) -> int:
        """Identity of the watched optimizer."""
        return self._optimizer_id

    def close(self) -> None:
        """Stop watching and leave no hook behind; harmless when called again."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.remove()
        self._gone()

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._inside and _steps_under_way(optimizer) > 1:
            self._nested = True
            return None
        self._inside, self._nested, self._packed = True, False, None
        if not self._sampling.wants(self.steps):
            return None
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._capturing(kwargs["closure"], optimizer)}
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._capturing(args[1], optimizer), *args[2:]), kwargs
        self._capture(optimizer)
        return None

    def _capturing(self, closure: Callable[..., Any], optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
        """Gradients exist only once the closure ran; of several calls the first is at the step's starting point."""
        calls: Iterator[int] = count()

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = closure(*args, **kwargs)
            if next(calls) == 0:
                self._capture(optimizer)
            return result

        return wrapped

    def _capture(self, optimizer: torch.optim.Optimizer) -> None:
        with self._containment.guard("gradient capture"), torch.no_grad():
            model = self._model()
            if model is None:
                self._warn_orphaned()
                return
            if _capturing_graph():
                return
            gradients = self._sampling.selection.gradients(model, optimizer)
            self._packed = pack(gradients, self._sampling.layout, self._sampling.thresholds)

    def _warn_orphaned(self) -> None:
        if not self._orphaned:
            self._orphaned = True
            _logger.warning(
                "A watched model is gone while its optimizer still steps, so that its gradients are no longer measured. "
                "Keep a reference to what watch() was given: it keeps none."
            )

    def _after(self, optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        if self._nested and _steps_under_way(optimizer) > 1:
            return
        self._inside = self._nested = False
        step, self.steps = self.steps, self.steps + 1
        with self._containment.guard("step"):
            at = self._clock.now()
            packed, self._packed = self._packed, None
            value, bits = self._loss()
            tensors = list(packed.parts) if packed is not None else []
            note = StepNote(
                env_id=self._clock.env_id,
                model_name=self.name,
                step=step,
                primary=self.primary,
                time_unix_nano=at,
                duration=self._clock.lap(at) if self.primary else None,
                learning_rate=_learning_rate(optimizer),
                epoch_ids=self._clock.epoch_ids,
                packed=packed,
                loss=value,
                loss_follows=bits is not None,
            )
            self._reader.submit(Transfer(tensors if bits is None else _with_loss(tensors, bits)), note)

    def _loss(self) -> tuple[float | None, torch.Tensor | None]:
        """Return the step's loss as a number, or as bits on its device; neither where there is none, or no number."""
        loss = self._clock.take_loss()
        with self._containment.guard("log_loss"):
            if isinstance(loss, torch.Tensor):
                return None, _loss_bits(loss)
            return None if loss is None else float(loss), None
        return None, None


def check_watchable(model: object, optimizer: object) -> None:
    """Refuse what cannot be watched, saying what to do.

    Raises:
        WatchError: ``model`` is no module, ``optimizer`` no optimizer, or it has none of the model's parameters.
    """
    if not isinstance(model, torch.nn.Module):
        raise WatchError(f"watch() needs a torch.nn.Module to watch, not a {type(model).__name__}.")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise WatchError(
            f"watch() needs the torch.optim.Optimizer that trains the model, not a {type(optimizer).__name__}; "
            "call watch(model, optimizer)."
        )
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not trained & {id(parameter) for parameter in model.parameters()}:
        raise WatchError(
            f"The {type(optimizer).__name__} optimizer has none of the parameters of {type(model).__name__}: was it built "
            "for another model, or before the model's parameters were replaced? Build it from model.parameters()."
        )


def parameter_names(model: torch.nn.Module) -> list[str]:
    """Return the names that a model's parameters have in telemetry."""
    return [name for name, _ in names_of(model)]


def _untraced(hook: Hook) -> Hook:
    """Return a hook that a compiled step() leaves its graph for: traced, it would be compiled anew for each step."""
    outside: Hook = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return outside


def _steps_under_way(optimizer: torch.optim.Optimizer) -> int:
    """Return how many ``step()`` calls of an optimizer are on the stack.

    There are two where a class's ``step`` calls that of its parent: torch then runs the hooks for each. Only the stack
    tells this from a step that raised, which runs no post hook.
    """
    number = 0
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the documented way to the stack
    while frame is not None:
        number += frame.f_code is _STEP and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return number


def _capturing_graph() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _loss_bits(loss: torch.Tensor) -> torch.Tensor:
    """Return a loss as the bits of a float64, shape ``(1,)``."""
    if loss.numel() != 1:
        raise ValueError(f"log_loss() takes one number, not a tensor of shape {tuple(loss.shape)}; give its mean.")
    return loss.to(torch.float64, copy=True).reshape(1).view(torch.int64)


def _with_loss(tensors: list[torch.Tensor], bits: torch.Tensor) -> list[torch.Tensor]:
    """Append the loss to the last part, where that is on the same device, so that they share one copy."""
    if tensors and tensors[-1].device == bits.device and bits.device.type != "cpu":
        return [*tensors[:-1], torch.cat([tensors[-1].reshape(-1), bits])]
    return [*tensors, bits]


def _learning_rate(optimizer: torch.optim.Optimizer) -> float | None:
    rate = optimizer.param_groups[0].get("lr") if optimizer.param_groups else None
    return float(rate) if isinstance(rate, int | float) else None
