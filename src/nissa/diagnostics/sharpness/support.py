"""Check for models whose sharpness cannot be measured."""

from typing import TYPE_CHECKING

from torch import nn

from nissa.distributed.dtensors import is_distributed
from nissa.errors import ConfigurationError
from nissa.torch_compat import is_fsdp1

if TYPE_CHECKING:
    import torch


def unsupported(model: nn.Module, optimizer: "torch.optim.Optimizer | None" = None) -> str | None:
    """Return the reason why a model cannot be measured, None for a supported model."""
    parameters = [*model.parameters()]
    for group in optimizer.param_groups if optimizer is not None else ():
        parameters += group["params"]
    if any(is_distributed(each) for each in parameters) or any(is_fsdp1(each) for each in model.modules()):
        return "its weights are sharded over ranks, and each rank would have to move its part at the same time"
    if any(isinstance(each, nn.UninitializedParameter) for each in parameters):
        return "it has weights without a shape yet"
    if not parameters:
        return "it has no weights"
    return None


def require_support(model: nn.Module, optimizer: "torch.optim.Optimizer | None" = None) -> None:
    """Raise for a model that cannot be measured.

    Raises:
        ConfigurationError: The model is not supported; the message has the reason.
    """
    if reason := unsupported(model, optimizer):
        raise ConfigurationError(f"The sharpness of this model cannot be measured: {reason}.")
