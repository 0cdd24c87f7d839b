"""Scope of a running optimizer step: holds its capture, and counts nested ``step()`` calls."""

import sys
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from types import FrameType

    from nissa.gradients.capture import Capture

_STEP: Final = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__
"""Code object of torch's wrapper around every ``step``, which runs the hooks; identifies its stack frames."""


class StepScope:
    """Holder of the capture of a running step.

    A step that raises runs no post hook to release its capture, and a capture references model, parameters and
    optimizer. Therefore the code that runs the step owns this object, for example the optimizer's pre hook. The watch
    only holds a weak reference.
    """

    capture: "Capture | None" = None


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
