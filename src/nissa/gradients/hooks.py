"""Step hooks of an optimizer: registration outside compiled graphs, nested calls of ``step()``, and captured CUDA graphs."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

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


def learning_rate(optimizer: torch.optim.Optimizer) -> torch.Tensor | float | None:
    """Return the learning rate of the first parameter group, or None if it has none."""
    rate = optimizer.param_groups[0].get("lr") if optimizer.param_groups else None
    return rate if isinstance(rate, int | float | torch.Tensor) else None


def recording() -> bool:
    """Whether a CUDA graph is being captured, so that operations are recorded and not executed."""
    # Check for initialization first: without CUDA, the capture query costs more than the rest of an unsampled step.
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return used and torch.cuda.is_current_stream_capturing()


def active_steps(optimizer: torch.optim.Optimizer) -> int:
    """Return the number of ``step()`` calls of an optimizer on the stack.

    The number is 2 if ``step`` of a class calls ``super().step()``: torch then runs the hooks for each call. Hooks
    alone cannot distinguish this from a previous step that raised, because that step runs no post hook.
    """
    number = 0
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the documented way to the stack
    while frame is not None:
        number += frame.f_code is _STEP and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return number
