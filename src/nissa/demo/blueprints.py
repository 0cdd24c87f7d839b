"""Blueprints of the demo: a name and a factory that builds the seed's module.

Every module preserves the shape of its input. Three blueprints add capacity that the host lacks. ``norm`` and ``scale``
add none: they only rescale existing features, so that the gates have seeds to reject.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

HIDDEN = 32
"""Number of hidden channels of a seed."""


class Residual(nn.Module):
    """Residual block ``x + branch(x)``; the branch is initialized to output zero, so a new seed is the identity.

    Args:
        branch: Modules of the branch in order; the last one is a convolution.
    """

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)
        _silence(branch[-1])

    def forward(self, x: "Tensor") -> "Tensor":
        """Return ``x + branch(x)``."""
        added: Tensor = self.branch(x)
        return x + added


class Attention(nn.Module):
    """Residual self-attention over the positions of a feature map.

    Args:
        channels: Number of channels of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * HIDDEN, kernel_size=3, padding=1)
        self.out = nn.Conv2d(HIDDEN, channels, kernel_size=1)
        _silence(self.out)

    def forward(self, x: "Tensor") -> "Tensor":
        """Return ``x + attention(x)``."""
        query, key, value = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        added: Tensor = self.out(gathered.reshape(len(x), HIDDEN, *x.shape[2:]))
        return x + added


class Scale(nn.Module):
    """Affine transform with one gain and one offset per channel, initialized to the identity.

    Args:
        channels: Number of channels of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: "Tensor") -> "Tensor":
        """Return ``x * gain + offset`` per channel."""
        return x * self.gain + self.offset


def _silence(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _conv_light(channels: int) -> nn.Module:
    return Residual(
        nn.Conv2d(channels, HIDDEN, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(HIDDEN, channels, kernel_size=1)
    )


def _depthwise(channels: int) -> nn.Module:
    # The number of output channels of a grouped convolution must be a multiple of its groups.
    hidden = channels * (HIDDEN // channels)
    return Residual(
        nn.Conv2d(channels, hidden, kernel_size=3, padding=1, groups=channels),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, kernel_size=1),
    )


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


BLUEPRINTS: "dict[str, Callable[[int], nn.Module]]" = {
    "conv_light": _conv_light,
    "norm": _norm,
    "depthwise": _depthwise,
    "scale": Scale,
    "attention": Attention,
}
"""Factory per blueprint name; the argument is the number of channels."""


def build(name: str, *, channels: int, seed: int) -> nn.Module:
    """Build a module of blueprint ``name``; its initial weights depend only on ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BLUEPRINTS[name](channels)
