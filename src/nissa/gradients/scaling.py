"""Loss scaling (``torch.amp.GradScaler``): gradients without their scale, and steps that it skips."""

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch


def scale_of(optimizer: torch.optim.Optimizer | None, device: torch.device) -> torch.Tensor | None:
    """Return what gradients are still multiplied by: a fused optimizer is handed the loss scale, and divides by it itself."""
    scale: torch.Tensor | None = getattr(optimizer, "grad_scale", None)
    return None if scale is None else scale.to(device, non_blocking=True)


def overflow(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return what says, on its device, whether a fused optimizer leaves its parameters alone; None where it never does.

    It is there while ``step()`` runs; one element, not zero where gradients were not finite.
    """
    found: torch.Tensor | None = getattr(optimizer, "found_inf", None)
    return found


class ScaledSteps:
    """Notices the steps that a scaler does not even begin, since it knows that gradients are not finite.

    It stands before ``scaler.step`` of one scaler, for all the optimizers that are watched with it.
    """

    def __init__(self, scaler: Any) -> None:
        self._scaler = scaler
        self._step: Callable[..., Any] = scaler.step
        self._watched: WeakValueDictionary[int, Any] = WeakValueDictionary()
        functools.update_wrapper(self, self._step)
        scaler.step = self

    @classmethod
    def of(cls, scaler: Any) -> "ScaledSteps":
        """Return the one that stands before a scaler's ``step``, putting it there where there is none."""
        present = scaler.__dict__.get("step")
        return present if isinstance(present, cls) else cls(scaler)

    def __call__(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Step as the scaler does, and tell a watch whose optimizer was not called."""
        watch = self._watched.get(id(optimizer))
        before = None if watch is None else watch.steps
        result = self._step(optimizer, *args, **kwargs)
        if watch is not None and watch.steps == before:
            watch.skip()
        return result

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        """A copied or pickled scaler steps as if it had never been watched."""
        return getattr, (self._scaler, "step")

    def add(self, key: int, watch: Any) -> None:
        """Tell a watch of the steps of its optimizer that are skipped."""
        self._watched[key] = watch

    def remove(self, key: int) -> None:
        """Forget a watch; with the last one the scaler is as it was."""
        self._watched.pop(key, None)
        if not self._watched and self._scaler.__dict__.get("step") is self:
            del self._scaler.step
