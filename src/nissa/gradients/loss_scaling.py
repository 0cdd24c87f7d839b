"""Loss scaling (``torch.amp.GradScaler``): unscaling of gradients and detection of skipped steps."""

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch

from nissa.gradients.hooks import recording
from nissa.torch_compat import found_infs, is_unscaled, loss_scale


def scale_of(optimizer: torch.optim.Optimizer | None, device: torch.device) -> torch.Tensor | None:
    """Return the factor that gradients are still multiplied by, or None.

    A fused optimizer receives the loss scale and divides by it inside ``step()``.
    """
    scale: torch.Tensor | None = getattr(optimizer, "grad_scale", None)
    return None if scale is None else scale.to(device, non_blocking=True)


def pending_scale(scaler: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return the factor that a scaler has yet to divide an optimizer's gradients by, or None.

    ``scaler.step()`` divides them, unless the training loop has called ``scaler.unscale_()`` before.
    """
    return None if is_unscaled(scaler, optimizer) else loss_scale(scaler)


def overflow(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return the ``found_inf`` tensor of a fused optimizer, on its device; None for other optimizers.

    It exists while ``step()`` runs and has one element. A nonzero value means that gradients were not finite and the
    optimizer skips the update.
    """
    found: torch.Tensor | None = getattr(optimizer, "found_inf", None)
    return found


def found_inf_of(scaler: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return the ``found_inf`` that a scaler stores for an optimizer until ``update()``; None if it has none.

    Values of several devices are summed on the first device, like the scaler does for a fused optimizer.
    """
    found = found_infs(scaler, optimizer)
    if len(found) <= 1:
        return found[0] if found else None
    return torch.stack([each.to(found[0].device, non_blocking=True) for each in found]).sum()


class ScaledSteps:
    """Wrapper around ``scaler.step`` that detects skipped steps.

    A scaler does not call ``optimizer.step()`` if gradients are not finite, so that no optimizer hook runs. One wrapper
    serves all watched optimizers of a scaler.
    """

    def __init__(self, scaler: Any) -> None:
        self._scaler = scaler
        self._step: Callable[..., Any] = scaler.step
        self._watched: WeakValueDictionary[int, Any] = WeakValueDictionary()
        functools.update_wrapper(self, self._step)
        scaler.step = self

    @property
    def scaler(self) -> Any:
        """The wrapped scaler."""
        return self._scaler

    @classmethod
    def of(cls, scaler: Any) -> "ScaledSteps":
        """Return the wrapper of a scaler; install it if the scaler has none."""
        present = scaler.__dict__.get("step")
        return present if isinstance(present, cls) else cls(scaler)

    def __call__(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Call the scaler's ``step``; record a skipped step on the watch if the optimizer was not called."""
        watch = self._watched.get(id(optimizer))
        # Compare the object too: the id of a garbage-collected optimizer may have been reused.
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
        """Copy or pickle the original ``step``, so that a copied scaler is unwatched."""
        return getattr, (self._scaler, "step")

    def add(self, key: int, watch: Any) -> None:
        """Report skipped steps of an optimizer to its watch."""
        self._watched[key] = watch

    def remove(self, key: int, watch: Any) -> None:
        """Remove a watch; removing the last one restores the original ``scaler.step``."""
        if self._watched.get(key) is watch:
            del self._watched[key]
        if not self._watched and self._scaler.__dict__.get("step") is self:
            del self._scaler.step
