"""Host network of the demo, with slots for seeds.

The host is deliberately too small. With few channels and a linear head its accuracy stays well below the optimum for
noisy digits, so that a seed can improve it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nissa.demo.data import CLASSES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

SLOTS = ("r0c0", "r0c1", "r0c2")
"""Names of the slots, from the input to the head."""

_AS_THEY_ARE: Mapping[str, float] = MappingProxyType({})


class Slot(nn.Module):
    """Slot for one seed: computes ``x + alpha * (seed(x) - x)``, and exactly ``x`` if it is empty or ``alpha`` is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.seed: nn.Module | None = None
        self.alpha = 0.0

    def plant(self, seed: nn.Module) -> None:
        """Insert ``seed`` with an alpha of 0."""
        self.seed, self.alpha = seed, 0.0

    def clear(self) -> None:
        """Remove the seed."""
        self.seed, self.alpha = None, 0.0

    def forward(self, x: "Tensor", alpha: float | None = None) -> "Tensor":
        """Blend ``x`` with the seed's output.

        Args:
            x: Input.
            alpha: Blending weight of the seed for this call; the slot's own if None.
        """
        alpha = self.alpha if alpha is None else alpha
        if self.seed is None or alpha == 0.0:
            return x
        return torch.lerp(x, self.seed(x), alpha)


class Host(nn.Module):
    """Host network: two small convolutions and a linear head, with three slots between them.

    Args:
        channels: Number of channels of both convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv1 = nn.Conv2d(1, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.head = nn.Linear(channels * 4, CLASSES)
        self.slots = nn.ModuleDict({name: Slot() for name in SLOTS})

    def forward(self, images: "Tensor", alphas: Mapping[str, float] = _AS_THEY_ARE) -> "Tensor":
        """Return the logits, shape (N, 10).

        Args:
            images: Shape (N, 1, 8, 8).
            alphas: Alpha per slot for this call; other slots use their own.
        """
        x = self.slots["r0c0"](F.relu(self.conv1(images)), alphas.get("r0c0"))
        x = self.slots["r0c1"](F.max_pool2d(x, 2), alphas.get("r0c1"))
        x = self.slots["r0c2"](F.relu(self.conv2(x)), alphas.get("r0c2"))
        scores: Tensor = self.head(F.max_pool2d(x, 2).flatten(1))
        return scores

    def slot(self, name: str) -> Slot:
        """Return the slot with this name."""
        slot = self.slots[name]
        assert isinstance(slot, Slot)  # noqa: S101 - the list contains only slots
        return slot


def build_host(*, channels: int, seed: int) -> Host:
    """Build a host; its initial weights depend only on ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Host(channels)


def isolated_backward(host: Host, slot: str, images: "Tensor", labels: "Tensor") -> None:
    """Compute gradients of the seed in ``slot`` alone, as if it were fully blended.

    The host's weights are used in the forward pass but receive no gradient from it. The slot's own alpha is unchanged,
    so that the host's regular output stays independent of the seed.
    """
    parameters = [p for p in host.slot(slot).parameters() if p.requires_grad]
    loss = F.cross_entropy(host(images, {slot: 1.0}), labels)
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient


def join(optimizer: "Optimizer", module: nn.Module, *, learning_rate: float) -> None:
    """Add the parameters of ``module`` to ``optimizer`` as a separate parameter group."""
    optimizer.add_param_group({"params": list(module.parameters()), "lr": learning_rate})


def leave(optimizer: "Optimizer", module: nn.Module) -> None:
    """Remove the parameters of ``module`` and their state from ``optimizer``."""
    leaving = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in leaving]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    for parameter in module.parameters():
        optimizer.state.pop(parameter, None)


def set_rate(optimizer: "Optimizer", module: nn.Module, learning_rate: float) -> None:
    """Set the learning rate of all parameter groups that contain parameters of ``module``."""
    ours = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        if any(id(parameter) in ours for parameter in group["params"]):
            group["lr"] = learning_rate
