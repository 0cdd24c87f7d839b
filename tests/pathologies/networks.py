"""The networks of the runs: small, and each of a kind that people train."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from tests.pathologies.data import WORDS

Activation = Callable[[], nn.Module]


def mlp(*widths: int, activation: Activation = nn.ReLU, norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with something between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after))
        layers += [nn.LayerNorm(after)] if norm else []
        layers.append(activation())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def batch_normed(width: int, depth: int) -> nn.Sequential:
    """A deep network that batch norm makes trainable."""
    layers: list[nn.Module] = [nn.Linear(64, width)]
    for _ in range(depth):
        layers += [nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 10))


def linears(network: nn.Module) -> list[nn.Linear]:
    """Return the linear layers, first to last."""
    return [each for each in network.modules() if isinstance(each, nn.Linear)]


def scaled(network: nn.Module, factor: float) -> nn.Module:
    """Multiply the weights of all linear layers."""
    with torch.no_grad():
        for layer in linears(network):
            layer.weight.mul_(factor)
    return network


class Residual(nn.Module):
    """Adds what it computes to its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


def residual(width: int, depth: int) -> nn.Sequential:
    """A deep network of blocks that add up."""
    blocks = [
        Residual(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)))
        for _ in range(depth)
    ]
    return nn.Sequential(nn.Linear(64, width), *blocks, nn.LayerNorm(width), nn.Linear(width, 10))


def cnn(norm: Callable[[int], nn.Module] = nn.BatchNorm2d, width: int = 12) -> nn.Sequential:
    """Convolutions with a norm, and a head."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        norm(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        norm(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )


class Recurrent(nn.Module):
    """A recurrent layer, and a head on its last state."""

    def __init__(self, layer: nn.RNNBase, outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(x)
        result: Tensor = self.head(states[:, -1])
        return result


class Encoder(nn.Module):
    """A transformer over the rows of a digit."""

    def __init__(self, width: int = 32, depth: int = 2, *, first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.places = nn.Parameter(torch.randn(8, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=first)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x) + self.places
        for block in self.blocks:
            hidden = block(hidden)
        result: Tensor = self.head(hidden.mean(1))
        return result


class Gpt(nn.Module):
    """A small language model; its head may share the weights of its embedding."""

    def __init__(self, width: int = 32, depth: int = 2, *, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.places = nn.Parameter(torch.randn(64, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, WORDS, bias=False)
        nn.init.normal_(self.embed.weight, std=0.1)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x) + self.places[: x.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        for block in self.blocks:
            hidden = block(hidden, mask, is_causal=True)
        result: Tensor = self.head(self.norm(hidden)).transpose(1, 2)
        return result


class Variational(nn.Module):
    """A variational autoencoder; returns the image beside mean and log-variance of its code."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = mlp(64, 64, 16)
        self.decode = mlp(8, 64, 64)

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.encode(x).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (spread / 2).exp()
        return torch.cat((self.decode(code), mean, spread), 1)


class Detachable(nn.Module):
    """A network whose first half can be cut off from the gradient, as a stray ``detach()`` does."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.cut = False

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(x)
        result: Tensor = self.second(hidden.detach() if self.cut else hidden)
        return result
