"""Arguments of ``watch()``: checks, and the optimizer whose step hooks run whenever weights change.

Many libraries wrap an optimizer in an object that has a ``step`` of its own. Some of these objects subclass
``torch.optim.Optimizer`` without initialising it, so that torch runs no step hooks for them; of others (SAM) the training
loop calls different methods. In both cases the inner optimizer changes the weights, and its hooks run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from nissa.distributed.sharding import unsupported
from nissa.errors import WatchError

_INNER: Final = ("optimizer", "original_optimizer", "optim", "base_optimizer", "_base_optimizer")
"""Attributes that hold the inner optimizer: accelerate, Lightning and apex; Opacus; torch; SAM; timm."""


@dataclass(frozen=True, slots=True)
class UnwrappedOptimizer:
    """Optimizer to watch behind the object that a training loop steps.

    Args:
        optimizer: Innermost optimizer that holds all parameters and whose step hooks run.
        outer: Wrappers around it whose step hooks run as well, outermost first.
        scaler: Gradient scaler passed by the caller, or the one that a wrapper holds.
    """

    optimizer: torch.optim.Optimizer
    outer: tuple[torch.optim.Optimizer, ...] = ()
    scaler: Any = None


def check_model(model: object) -> None:
    """Check the type of the model passed to ``watch()``.

    Raises:
        WatchError: It is not a module.
    """
    if not isinstance(model, torch.nn.Module):
        raise WatchError(f"watch() needs a torch.nn.Module, not a {type(model).__name__}.")


def check_watchable(model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
    """Check the arguments of ``watch()``, with the optimizer unwrapped.

    Raises:
        WatchError: The scaler has the wrong type, the optimizer has none of the model's parameters, or the model is
            wrapped in a way that hides its parameters.
    """
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        raise WatchError(f"watch(scaler=...) needs a torch.amp.GradScaler, not a {type(scaler).__name__}.")
    reason = unsupported(model)
    if reason is not None:
        raise WatchError(reason)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not trained & {id(parameter) for parameter in model.parameters()}:
        raise WatchError(
            f"The {type(optimizer).__name__} optimizer has none of the parameters of {type(model).__name__}. It may "
            "have been built for another model, or before the model's parameters were replaced. Build it from "
            "model.parameters()."
        )


def unwrap(optimizer: object, scaler: Any = None, *, hooks: bool = True) -> UnwrappedOptimizer:
    """Return the optimizer to watch. Nothing is changed.

    Args:
        optimizer: A ``torch.optim.Optimizer``, or a wrapper around one.
        scaler: Gradient scaler that the caller passed, None if there is none.
        hooks: Whether hooks will be registered. Otherwise an optimizer for which torch runs none is accepted.

    Raises:
        WatchError: The object is no optimizer, or torch runs step hooks neither for it nor for an optimizer inside.
    """
    layers = list(_layers(optimizer))
    if not layers or isinstance(optimizer, torch.optim.lr_scheduler.LRScheduler):
        raise WatchError(
            f"watch() needs the torch.optim.Optimizer that trains the model, not a {type(optimizer).__name__}; "
            "call watch(model, optimizer)."
        )
    hooked = [layer for layer in layers if runs_step_hooks(layer)]
    complete = [layer for layer in hooked if _parameter_ids(layer) >= _parameter_ids(layers[0])]
    if not complete and not hooks and isinstance(optimizer, torch.optim.Optimizer):
        complete = [optimizer]
    if not complete:
        names = " or ".join(f".{name}" for name in _INNER)
        raise WatchError(
            f"torch runs no step hooks for this {type(optimizer).__name__}, and it holds no optimizer for which they run "
            f"(as {names}): pass the torch.optim optimizer that it steps, or call super().__init__() in its __init__. "
            "Otherwise pass hooks=False and mark each step with `with handle.step():`."
        )
    target = complete[-1]
    held = (getattr(layer, "scaler", None) for layer in layers)
    found = next((each for each in held if isinstance(each, torch.amp.GradScaler)), None)
    return UnwrappedOptimizer(
        target, tuple(layer for layer in hooked if layer is not target), found if scaler is None else scaler
    )


def runs_step_hooks(optimizer: object) -> bool:
    """Whether torch runs hooks that are registered on an optimizer when its ``step`` is called."""
    if not isinstance(optimizer, torch.optim.Optimizer) or not getattr(type(optimizer).step, "hooked", False):
        return False
    try:
        optimizer.register_step_pre_hook(_nothing).remove()
    except AttributeError:  # Optimizer.__init__ was not called, so that there is no dictionary of hooks
        return False
    return True


def _layers(optimizer: Any) -> Iterator[Any]:
    """Yield an optimizer and those inside it, outermost first."""
    known: set[int] = set()
    layer = optimizer
    while layer is not None and id(layer) not in known and callable(getattr(layer, "step", None)):
        known.add(id(layer))
        yield layer
        inner = (getattr(layer, name, None) for name in _INNER)
        layer = next((each for each in inner if callable(getattr(each, "step", None))), None)


def _parameter_ids(optimizer: Any) -> set[int]:
    groups = getattr(optimizer, "param_groups", None) or ()
    return {id(parameter) for group in groups for parameter in group["params"]}


def _nothing(*_: Any) -> None:
    pass
