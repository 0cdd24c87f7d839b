"""Per-step scalars: logged by the loop (loss, clip norm) or read from the optimizer (learning rate, found_inf)."""

from typing import TYPE_CHECKING

import torch

from nissa.gradients.hooks import learning_rates
from nissa.gradients.packing import one_number
from nissa.gradients.step_metadata import BACKWARD, CLIP_NORM, LOSS, OVERFLOW, RATE
from nissa.kernels.transfer import on_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nissa.gradients.step_inputs import PendingStepInputs
    from nissa.hub.error_boundary import ErrorBoundary


def step_scalars(
    optimizer: torch.optim.Optimizer | None,
    inputs: "PendingStepInputs",
    error_boundary: "ErrorBoundary",
    *,
    found_inf: torch.Tensor | None = None,
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Return the scalars of a step by name, all but its loss: those on the host, and those that must be read back.

    Args:
        optimizer: None if it was garbage-collected.
        inputs: Values logged by the training loop.
        error_boundary: Catches errors of values that cannot be converted to a number.
        found_inf: Nonzero if the optimizer skips the update.
    """
    rates = [] if optimizer is None else learning_rates(optimizer)
    found: dict[str, torch.Tensor | float | None] = dict(inputs.logged)
    found |= {f"{RATE}{group}": rate for group, rate in enumerate(rates) if rate is not None}
    found |= {CLIP_NORM: inputs.clip_norm, OVERFLOW: found_inf, BACKWARD: inputs.backward}
    return split_scalars(found, error_boundary)


def split_scalars(
    found: "Mapping[str, torch.Tensor | float | None]", error_boundary: "ErrorBoundary"
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Divide scalars into those on the host and those that must be read back; None is left out."""
    known: dict[str, float] = {}
    moving: dict[str, torch.Tensor] = {}
    for name, value in found.items():
        if value is None:
            continue
        if type(value) is float:  # the usual case, which cannot fail
            known[name] = value
            continue
        with error_boundary.guard("log_loss" if name == LOSS else name):
            if not isinstance(value, torch.Tensor):
                known[name] = float(value)
                continue
            number = one_number(value, "log_loss()" if name == LOSS else name)
            host_value = on_host(number)
            if host_value is None:
                moving[name] = number
            else:
                known[name] = host_value
    return known, moving
