"""Networks for contracts, beside those of the pathologies."""

import torch
from torch import Tensor, nn

from tests.pathologies import networks


def mlp(*, dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    """Digits as rows of 64 numbers."""
    return networks.mlp(64, 48, 48, 10, dropout=dropout, norm=norm)


class Spare(nn.Module):
    """A network with a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.spare, self.last = nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.first(x).relu())
        return result


class Detached(nn.Module):
    """A network of which the first half is cut off from the loss."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).detach())
        return result


class Experts(nn.Module):
    """Experts of which some are never chosen."""

    def __init__(self, used: int = 2) -> None:
        super().__init__()
        self.used = used
        self.enter = nn.Linear(64, 48)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(48, 48), nn.ReLU()) for _ in range(6))
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.enter(x).relu()
        chosen = torch.randint(self.used, (len(x),))
        out = torch.zeros_like(hidden)
        for index in range(self.used):
            rows = (chosen == index).nonzero().flatten()
            out = out.index_add(0, rows, self.experts[index](hidden[rows]))
        result: Tensor = self.head(out)
        return result


class Heads(nn.Module):
    """A body with two heads, of which one is used at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 48)
        self.digit, self.parity = nn.Linear(48, 10), nn.Linear(48, 2)
        self.other = False

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (self.parity if self.other else self.digit)(self.body(x).relu())
        return result


class LowRank(nn.Module):
    """LoRA: a frozen layer, and an update of low rank of which one factor begins at zero."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(requires_grad=False)
        self.a = nn.Parameter(torch.randn(rank, layer.in_features) / 8)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x) + x @ self.a.T @ self.b.T
        return result


def low_rank() -> nn.Sequential:
    """An MLP with LoRA on each layer."""
    return nn.Sequential(*(LowRank(each) if isinstance(each, nn.Linear) else each for each in mlp()))


class Softmax(nn.Module):
    """A network with a softmax or sigmoid at its end."""

    def __init__(self, inner: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.inner, self.last = inner, last

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.inner(x))
        return result


def constant(network: nn.Module, value: float) -> nn.Module:
    """Set the weights of all layers to a constant."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.fill_(value)
    return network
