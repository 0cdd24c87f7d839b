"""Validation of the arguments of ``watch()``, with actionable error messages."""

from typing import Any

import torch

from nissa.distributed.sharding import unsupported
from nissa.errors import WatchError


def check_watchable(model: object, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
    """Check the arguments of ``watch()``, with the optimizer unwrapped.

    Raises:
        WatchError: An argument has the wrong type, the optimizer has none of the model's parameters, or the model is
            wrapped in a way that hides its parameters.
    """
    if not isinstance(model, torch.nn.Module):
        raise WatchError(f"watch() needs a torch.nn.Module to watch, not a {type(model).__name__}.")
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        raise WatchError(f"watch(scaler=...) needs a torch.amp.GradScaler, not a {type(scaler).__name__}.")
    reason = unsupported(model)
    if reason is not None:
        raise WatchError(reason)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not trained & {id(parameter) for parameter in model.parameters()}:
        raise WatchError(
            f"The {type(optimizer).__name__} optimizer has none of the parameters of {type(model).__name__}: was it built "
            "for another model, or before the model's parameters were replaced? Build it from model.parameters()."
        )
