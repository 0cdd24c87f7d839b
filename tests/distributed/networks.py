"""Small networks that processes train together."""

from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Block(nn.Module):
    """Odd sizes, so that shards are uneven; `scale` is smaller than the world, `unused` has no gradient anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 7)
        self.down = nn.Linear(7, 5)
        self.scale = nn.Parameter(torch.ones(1))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scale * self.down(self.up(x).relu())
        return y


class Transformed(nn.Module):
    """Norms on a sequence, and between them layers that tensor parallelism splits."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(4)
        self.up = nn.Linear(4, 8)
        self.down = nn.Linear(8, 4)
        self.after = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.down(self.up(self.before(x)).relu()))
        return y


def built(kind: type[M]) -> M:
    """Return the same network on every rank, in float64."""
    torch.manual_seed(0)
    return kind().double()
