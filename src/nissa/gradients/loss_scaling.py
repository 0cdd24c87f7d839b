"""Loss scaling (``torch.amp.GradScaler``): gradients without their scale, and steps that it skips."""

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch

from nissa.gradients.hooks import recording


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


def found_inf_of(scaler: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return the ``found_inf`` that a scaler keeps of an optimizer's step until its ``update()``; None where it has none.

    Several devices are added up on the first of them, as the scaler does for a fused optimizer.
    """
    state = getattr(scaler, "_per_optimizer_states", {}).get(id(optimizer), {})
    found: list[torch.Tensor] = list(state.get("found_inf_per_device", {}).values())
    if len(found) <= 1:
        return found[0] if found else None
    return torch.stack([each.to(found[0].device, non_blocking=True) for each in found]).sum()


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
        # The id of an optimizer that was collected may be that of another one by now.
        if watch is None or watch.optimizer is not optimizer:
            return self._step(optimizer, *args, **kwargs)
        before = watch.steps
        result = self._step(optimizer, *args, **kwargs)
        if watch.by_hand:
            watch.note_overflow(self._scaler)
        elif watch.steps == before and not recording():
            watch.skip()
        return result

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        """A copied or pickled scaler steps as if it had never been watched."""
        return getattr, (self._scaler, "step")

    def add(self, key: int, watch: Any) -> None:
        """Tell a watch of the steps of its optimizer that are skipped."""
        self._watched[key] = watch

    def remove(self, key: int, watch: Any) -> None:
        """Forget a watch; with the last one the scaler is as it was."""
        if self._watched.get(key) is watch:
            del self._watched[key]
        if not self._watched and self._scaler.__dict__.get("step") is self:
            del self._scaler.step
