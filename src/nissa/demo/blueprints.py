"""What can be grown: the name of a blueprint, and how to build a module from it.

Every module keeps the shape of what it is given. Three blueprints add capacity that the host lacks; ``norm`` and
``scale`` only move what is already there, and are here so that the gates have something to refuse.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

HIDDEN = 32
"""Channels inside a seed."""


class Residual(nn.Module):
    """``x + branch(x)``, where the branch begins as zero: a fresh seed repeats its input.

    Args:
        branch: Modules in order; the last one is a convolution.
    """

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)
        _silence(branch[-1])

    def forward(self, x: "Tensor") -> "Tensor":
        """Return ``x`` and what the branch adds to it."""
        added: Tensor = self.branch(x)
        return x + added


class Attention(nn.Module):
    """Self-attention over the positions of a feature map, added to its input.

    Args:
        channels: Channels of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * HIDDEN, kernel_size=3, padding=1)
        self.out = nn.Conv2d(HIDDEN, channels, kernel_size=1)
        _silence(self.out)

    def forward(self, x: "Tensor") -> "Tensor":
        """Return ``x`` and what each position gathers from the others."""
        query, key, value = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        added: Tensor = self.out(gathered.reshape(len(x), HIDDEN, *x.shape[2:]))
        return x + added


class Scale(nn.Module):
    """One gain and one offset per channel, beginning as the identity.

    Args:
        channels: Channels of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: "Tensor") -> "Tensor":
        """Return ``x`` stretched and moved, channel by channel."""
        return x * self.gain + self.offset


def _silence(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _conv_light(channels: int) -> nn.Module:
    return Residual(
        nn.Conv2d(channels, HIDDEN, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(HIDDEN, channels, kernel_size=1)
    )


def _depthwise(channels: int) -> nn.Module:
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
"""Name of each blueprint, and what builds its module for a number of channels."""


def build(name: str, *, channels: int, seed: int) -> nn.Module:
    """Return a fresh module of blueprint ``name``; its initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BLUEPRINTS[name](channels)
