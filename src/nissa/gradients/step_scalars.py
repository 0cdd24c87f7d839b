"""Per-step scalars: logged by the loop (loss, clip norm) or read from the optimizer (learning rate, found_inf)."""

from typing import TYPE_CHECKING

import torch

from nissa.gradients.hooks import learning_rate
from nissa.gradients.packing import one_number
from nissa.gradients.step_metadata import CLIP_NORM, LOSS, OVERFLOW, RATE
from nissa.kernels.transfer import on_host

if TYPE_CHECKING:
    from nissa.gradients.steps import PendingStepInputs
    from nissa.hub.error_boundary import ErrorBoundary


def step_scalars(
    optimizer: torch.optim.Optimizer | None,
    inputs: "PendingStepInputs",
    error_boundary: "ErrorBoundary",
    *,
    found_inf: torch.Tensor | None = None,
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Return the scalars of a step by name: first those on the host, then those that must be read back.

    Args:
        optimizer: None if it was garbage-collected.
        inputs: Values logged by the training loop.
        error_boundary: Catches errors of values that cannot be converted to a number.
        found_inf: Nonzero if the optimizer skips the update.
    """
    found = {
        LOSS: inputs.loss,
        CLIP_NORM: inputs.clip_norm,
        RATE: None if optimizer is None else learning_rate(optimizer),
        OVERFLOW: found_inf,
        **inputs.logged,
    }
    known: dict[str, float] = {}
    moving: dict[str, torch.Tensor] = {}
    for name, value in found.items():
        with error_boundary.guard("log_loss" if name == LOSS else name):
            if not isinstance(value, torch.Tensor):
                known |= {} if value is None else {name: float(value)}
                continue
            number = one_number(value, "log_loss()" if name == LOSS else name)
            host_value = on_host(number)
            if host_value is None:
                moving[name] = number
            else:
                known[name] = host_value
    return known, moving
