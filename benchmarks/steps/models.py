"""Models to train: a language model, a convolutional net, and three with short steps."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

Training = tuple[nn.Module, Callable[[nn.Module], Tensor]]
"""Network, and a function that returns its loss on a batch."""


class Block(nn.Module):
    """A block of a transformer: 12 tensors."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, T, width)``."""
        batch, time, width = x.shape
        mixed = self.mixed(self.before(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, time, width))
        left: Tensor = x + self.mlp(self.after(x))
        return left


class Gpt(nn.Module):
    """Twelve blocks: 149 tensors, 10.0 M elements."""

    def __init__(self, width: int = 256, tokens: int = 1000, time: int = 128) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(time, width)
        self.blocks = nn.Sequential(*(Block(width, 8) for _ in range(12)), nn.LayerNorm(width))
        self.head = nn.Linear(width, tokens, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, tokens, T)``."""
        inside = self.blocks(self.tokens(x) + self.places.weight[: x.shape[1]])
        logits: Tensor = self.head(inside).transpose(1, 2)
        return logits


def gpt(device: str = "cpu") -> Training:
    """Return the language model; a batch is 6 sequences of 128 tokens."""
    model = Gpt().to(device)
    text = torch.randint(0, 1000, (6, 129)).to(device)
    return model, lambda network: F.cross_entropy(network(text[:, :-1]), text[:, 1:])


def tiny(device: str = "cpu") -> Training:
    """Return a tiny language model for rehearsals; its results have no meaning."""
    text = torch.randint(0, 100, (2, 17)).to(device)
    return Gpt(32, 100, 16).to(device), lambda network: F.cross_entropy(network(text[:, :-1]), text[:, 1:])


def _convolution(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inward, outward, 3, padding=1, bias=False), nn.BatchNorm2d(outward), nn.ReLU())


def convnet(device: str = "cpu") -> Training:
    """Return the convolutional net, 32 tensors and 4.7 M elements; a batch is 48 images of 32 by 32."""
    widths = (3, 64, 64, "half", 128, 128, "half", 256, 256, "half", 512, 512)
    layers: list[nn.Module] = []
    before = 3
    for width in widths[1:]:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(_convolution(before, width))
        before = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)).to(device)
    images, labels = torch.randn(48, 3, 32, 32).to(device), torch.randint(0, 10, (48,)).to(device)
    return model, lambda network: F.cross_entropy(network(images), labels)


def mlp(device: str = "cpu") -> Training:
    """Return a network of 8 tensors with at most 272 elements; a batch is 8 vectors of 4 numbers."""
    widths = (4, 16, 16, 16, 2)
    layers = [part for before, width in pairwise(widths) for part in (nn.Linear(before, width), nn.Tanh())]
    inputs = torch.randn(8, 4).to(device)
    return nn.Sequential(*layers).to(device), lambda network: network(inputs).square().mean()


def deep(device: str = "cpu") -> Training:
    """Return a network of 150 tensors with at most 256 elements; a batch is 8 vectors of 16 numbers."""
    layers = [part for _ in range(75) for part in (nn.Linear(16, 16), nn.LayerNorm(16, elementwise_affine=False))]
    inputs = torch.randn(8, 16).to(device)
    return nn.Sequential(*layers).to(device), lambda network: network(inputs).square().mean()


def policy(device: str = "cpu") -> Training:
    """Return a policy of the size of CartPole's, 4 tensors; a step is an episode of 20 actions and its policy gradient."""
    model = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 2)).to(device)
    states, returns = torch.randn(20, 4).to(device), torch.linspace(1, -1, 20).to(device)

    def loss(network: nn.Module) -> Tensor:
        chosen = []
        for state in states:
            actions = torch.distributions.Categorical(logits=network(state))
            chosen.append(actions.log_prob(actions.sample()))  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return -(torch.stack(chosen) * returns).sum()

    return model, loss


MODELS: dict[str, Callable[[str], Training]] = {
    "gpt": gpt,
    "convnet": convnet,
    "tiny": tiny,
    "mlp": mlp,
    "deep": deep,
    "policy": policy,
}

SHORT = ("mlp", "deep", "policy")
"""Models whose steps take less than a few milliseconds."""

MEASURED = ("gpt", "convnet")
"""Models of the committed results."""
