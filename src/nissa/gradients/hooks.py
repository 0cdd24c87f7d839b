"""Step hooks of an optimizer: registration outside compiled graphs, nested calls of ``step()``, and captured CUDA graphs."""

import sys
import weakref
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from nissa.torch_compat import step_pre_hooks

if TYPE_CHECKING:
    from types import FrameType

Hook = TypeVar("Hook", bound=Callable[..., Any])

_STEP: Final = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__
"""Code object of torch's wrapper around every ``step``, which runs the hooks; identifies its stack frames."""


def untraced(hook: Hook, owned: object = None) -> Hook:
    """Return a hook that runs outside the graph of a compiled step().

    A traced hook would be recompiled at every step.
    """
    outside: Hook = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    outside.__dict__["owned"] = owned
    return outside


class LastHook:
    """Step pre hook that runs after all other pre hooks of its optimizer, so that it sees what they change.

    Args:
        optimizer: Optimizer to register the hook on; only a weak reference is kept.
        hook: The hook.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hook: Callable[..., Any]) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._hook = weakref.ref(hook)  # the optimizer owns the hook, and the hook owns the capture of a running step
        self._handle = optimizer.register_step_pre_hook(hook)

    def stay_last(self) -> None:
        """Register the hook again if a later one was registered; torch runs pre hooks in the order of registration."""
        optimizer, hook = self._optimizer(), self._hook()
        if optimizer is None or hook is None:
            return
        registered = step_pre_hooks(optimizer)
        if registered and next(reversed(registered)) == self._handle.id:
            return
        self._handle.remove()
        self._handle = optimizer.register_step_pre_hook(hook)

    def remove(self) -> None:
        """Remove the hook."""
        self._handle.remove()


def learning_rates(optimizer: torch.optim.Optimizer) -> list[torch.Tensor | float | None]:
    """Return the learning rate of each parameter group, None for a group that has none."""
    rates = [group.get("lr") for group in optimizer.param_groups]
    return [rate if isinstance(rate, int | float | torch.Tensor) else None for rate in rates]


def closure_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """Return the closure among the arguments of ``step()``, the first of which is the optimizer."""
    closure: Callable[..., Any] | None = kwargs.get("closure")
    if callable(closure):
        return closure
    return args[1] if len(args) > 1 and callable(args[1]) else None


def recording() -> bool:
    """Whether a CUDA graph is being captured, so that operations are recorded and not executed."""
    # Check for initialization first: without CUDA, the capture query costs more than the rest of an unsampled step.
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return used and torch.cuda.is_current_stream_capturing()


def active_steps(optimizers: AbstractSet[int]) -> int:
    """Return the number of ``step()`` calls of optimizers on the stack.

    The number is 2 if ``step`` of a class calls ``super().step()``, or that of a wrapped optimizer: torch then runs the
    hooks for each call. Hooks alone cannot distinguish this from a previous step that raised, because that step runs no
    post hook.

    Args:
        optimizers: ``id()`` of each optimizer.
    """
    number = 0
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the documented way to the stack
    while frame is not None:
        number += frame.f_code is _STEP and id(frame.f_locals.get("self")) in optimizers
        frame = frame.f_back
    return number
