"""Which models cannot be measured, and why."""

from typing import TYPE_CHECKING

from torch import nn

from nissa.distributed.dtensors import is_distributed
from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    import torch


def unsupported(model: nn.Module, optimizer: "torch.optim.Optimizer | None" = None) -> str | None:
    """Return why a model cannot be measured, None where it can."""
    parameters = [*model.parameters()]
    for group in optimizer.param_groups if optimizer is not None else ():
        parameters += group["params"]
    if any(is_distributed(each) for each in parameters) or any(_shards(each) for each in model.modules()):
        return "its weights are sharded over ranks, and each rank would have to move its part at the same time"
    if any(isinstance(each, nn.UninitializedParameter) for each in parameters):
        return "it has weights without a shape yet"
    if not parameters:
        return "it has no weights"
    return None


def require_support(model: nn.Module, optimizer: "torch.optim.Optimizer | None" = None) -> None:
    """Refuse a model that cannot be measured.

    Raises:
        ConfigurationError: Says why.
    """
    if reason := unsupported(model, optimizer):
        raise ConfigurationError(f"The sharpness of this model cannot be measured: {reason}.")


def _shards(module: nn.Module) -> bool:
    """Whether it is FSDP's first form, whose parameters look like plain ones; nothing is imported for it."""
    return type(module).__name__ == "FullyShardedDataParallel" or hasattr(module, "_fsdp_wrapped_module")
