"""Loss of a step, observed where ``backward()`` is called."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from nissa.integrations.patches import Patches
from nissa.integrations.step_losses import StepLosses
from nissa.integrations.zero_code.access import ObservedMethod

_PRODUCTS: Final = frozenset({"MulBackward0", "DivBackward0"})
"""Last operations of a loss that has been divided or multiplied, for accumulation or for a reason that is not known."""


@dataclass(frozen=True, slots=True)
class StepLoss:
    """Loss of a step.

    Args:
        value: The loss, or the sum of the values that ``backward()`` was called on.
        is_known: Whether it is the loss, undivided.
    """

    value: torch.Tensor
    is_known: bool


class ObservedLosses:
    """Losses that ``backward()`` was called on since the last step.

    The loss of a step is known if the step has one backward pass, of a value that was not divided or multiplied last. The
    factor of a gradient scaler is known, and removed. Otherwise there is the sum of the values, whose scale is not known:
    the step uses its gradient.

    Attributes:
        unknown: Whether a step had a backward pass, but no known loss.
    """

    def __init__(self) -> None:
        self.unknown = False
        self._losses = StepLosses()
        self._known = True
        # Losses passed to `logged`, which are averaged: their scale is known.
        self._given = StepLosses()
        self._ignoring = False
        self._scaler: weakref.ref[torch.amp.GradScaler] | None = None

    def install(self, patches: Patches, contain: Callable[[Callable[[Any], None]], Callable[[Any], None]]) -> None:
        """Observe backward passes and gradient scalers, with functions that contain their faults."""
        for owner, name, observe in (
            (torch.Tensor, "backward", self._backward),
            (torch.amp.GradScaler, "scale", self._scaling),
            (torch.amp.GradScaler, "update", self._updating),
        ):
            patches.replace(owner, name, ObservedMethod(vars(owner)[name], contain(observe)))

    def take(self) -> StepLoss | None:
        """Return the loss of the step that begins, and forget the losses; None without a backward pass."""
        given, known_losses = self._given.count, self._given.take()
        count, known, self._known = self._losses.count, self._known, True
        total = self._losses.take()
        if known_losses is not None:
            return StepLoss(known_losses / given, is_known=True)
        if total is None:
            return None
        is_known = count == 1 and known
        self.unknown |= not is_known
        return StepLoss(total, is_known=is_known)

    @contextmanager
    def logged(self, loss: torch.Tensor) -> Iterator[None]:
        """Add the loss of a backward pass whose scale is known; what ``backward()`` is called on within is ignored."""
        self._given.add(loss)
        self._ignoring = True
        try:
            yield
        finally:
            self._ignoring = False

    def _scaling(self, scaler: torch.amp.GradScaler) -> None:
        self._scaler = weakref.ref(scaler)

    def _updating(self, _scaler: torch.amp.GradScaler) -> None:
        """Forget the losses that are left when a scaler is updated: it has skipped their step."""
        self.take()

    def _backward(self, loss: torch.Tensor) -> None:
        if self._ignoring or loss.numel() != 1 or loss.grad_fn is None or torch.compiler.is_compiling():
            return
        node, value = loss.grad_fn, loss.detach()
        scaler = None if self._scaler is None else self._scaler()
        self._scaler = None
        if scaler is not None and scaler.is_enabled() and node.name() == "MulBackward0":
            node = next((each for each, _ in node.next_functions if each is not None), node)
            value = value / torch.amp.GradScaler.scale(scaler, torch.ones_like(value))
        self._known &= node.name() not in _PRODUCTS
        self._losses.add(value)
