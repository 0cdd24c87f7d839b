"""Steps of training on a device that nothing waits for."""

import torch
from torch import nn


def backward(network: nn.Module, inputs: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    """Make gradients anew and return the loss."""
    network.zero_grad()
    loss: torch.Tensor = network(inputs).square().mean() * factor
    torch.autograd.backward(loss)
    return loss


def taken(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the gradients, on their device."""
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def on_host(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Bring gradients to the host."""
    return {name: gradient.cpu() for name, gradient in gradients.items()}
