"""The network that seeds are grafted into, and the slots that hold them.

The host is too small on purpose: with few channels and a linear head it stops learning well below what noisy digits
allow, which leaves something for a seed to gain.
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
"""Where a seed can grow, from the input to the head."""

_AS_THEY_ARE: Mapping[str, float] = MappingProxyType({})


class Slot(nn.Module):
    """A place for one seed: ``x + alpha * (seed(x) - x)``; the seed's absence and ``alpha`` 0 are exactly ``x``."""

    def __init__(self) -> None:
        super().__init__()
        self.seed: nn.Module | None = None
        self.alpha = 0.0

    def plant(self, seed: nn.Module) -> None:
        """Hold ``seed``, without any say in the output yet."""
        self.seed, self.alpha = seed, 0.0

    def clear(self) -> None:
        """Let the seed go."""
        self.seed, self.alpha = None, 0.0

    def forward(self, x: "Tensor", alpha: float | None = None) -> "Tensor":
        """Return ``x`` blended with what the seed makes of it, by ``alpha`` or else by the slot's own."""
        alpha = self.alpha if alpha is None else alpha
        if self.seed is None or alpha == 0.0:
            return x
        return torch.lerp(x, self.seed(x), alpha)


class Host(nn.Module):
    """Two small convolutions and a linear head, with three slots on the way.

    Args:
        channels: Channels of both convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv1 = nn.Conv2d(1, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.head = nn.Linear(channels * 4, CLASSES)
        self.slots = nn.ModuleDict({name: Slot() for name in SLOTS})

    def forward(self, images: "Tensor", alphas: Mapping[str, float] = _AS_THEY_ARE) -> "Tensor":
        """Return one score per class; ``alphas`` replaces the alpha of the slots that it names, for this call only."""
        x = self.slots["r0c0"](F.relu(self.conv1(images)), alphas.get("r0c0"))
        x = self.slots["r0c1"](F.max_pool2d(x, 2), alphas.get("r0c1"))
        x = self.slots["r0c2"](F.relu(self.conv2(x)), alphas.get("r0c2"))
        scores: Tensor = self.head(F.max_pool2d(x, 2).flatten(1))
        return scores

    def slot(self, name: str) -> Slot:
        """Return the slot called ``name``."""
        slot = self.slots[name]
        assert isinstance(slot, Slot)  # noqa: S101 - only slots are put there
        return slot


def build_host(*, channels: int, seed: int) -> Host:
    """Return a fresh host; its initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Host(channels)


def isolated_backward(host: Host, slot: str, images: "Tensor", labels: "Tensor") -> None:
    """Give the seed in ``slot`` the gradients of the loss as if it were fully blended, and the host none.

    The host takes part with the weights that it has: they are neither moved by this nor given a gradient, and what the
    host answers to everyone else stays what it is without the seed.
    """
    parameters = [p for p in host.slot(slot).parameters() if p.requires_grad]
    loss = F.cross_entropy(host(images, {slot: 1.0}), labels)
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient


def join(optimizer: "Optimizer", module: nn.Module, *, learning_rate: float) -> None:
    """Let ``optimizer`` train the parameters of ``module`` too, as a group of their own."""
    optimizer.add_param_group({"params": list(module.parameters()), "lr": learning_rate})


def leave(optimizer: "Optimizer", module: nn.Module) -> None:
    """Make ``optimizer`` forget the parameters of ``module`` and all it has kept about them."""
    leaving = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in leaving]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    for parameter in module.parameters():
        optimizer.state.pop(parameter, None)


def set_rate(optimizer: "Optimizer", module: nn.Module, learning_rate: float) -> None:
    """Train the parameters of ``module`` at another rate from here on."""
    ours = {id(parameter) for parameter in module.parameters()}
    for group in optimizer.param_groups:
        if any(id(parameter) in ours for parameter in group["params"]):
            group["lr"] = learning_rate
