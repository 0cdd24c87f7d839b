"""A step that is under way: how many there are of one optimizer, and what one has begun."""

import sys
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from types import FrameType

    from nissa.gradients.capture import Capture

_STEP: Final = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__
"""Of torch's wrapper around every ``step``, which runs the hooks."""


class StepScope:
    """Holds the capture of a step that has begun.

    A step that raises runs no hook that would let its capture go, and a capture knows model, parameters and optimizer.
    Whoever runs the step owns this, the optimizer's own hook for one; a watch refers to it weakly.
    """

    capture: "Capture | None" = None


def active_steps(optimizer: torch.optim.Optimizer) -> int:
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
