"""Networks and losses to measure, among them one whose Hessian is written down."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nissa.diagnostics.sharpness import Sharpness, compiled, evaluating, model_state_guard

Closure = Callable[[], Tensor]


class Quadratic(nn.Module):
    """``(w - m)' H (w - m) / 2`` in seven weights, four in one tensor and three in another, in float64."""

    hessian: Tensor
    minimum: Tensor

    def __init__(self, *, at_minimum: bool = False, times: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(times * torch.randn(2, 2, generator=generator).double())
        self.second = nn.Parameter(times * torch.randn(3, generator=generator).double())
        root = torch.randn(7, 7, generator=generator).double()
        self.register_buffer("hessian", root @ root.T + torch.eye(7))
        self.register_buffer("minimum", self.weights.detach().clone() * at_minimum)

    @property
    def weights(self) -> Tensor:
        return torch.cat((self.first.flatten(), self.second))

    @property
    def gradient(self) -> Tensor:
        return self.hessian @ (self.weights.detach() - self.minimum)

    def forward(self) -> Tensor:
        away = self.weights - self.minimum
        return away @ self.hessian @ away / 2


class Attending(nn.Module):
    """A transformer of one layer, with its head tied to its characters."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(10, 16)
        self.mixed = nn.Linear(16, 48)
        self.head = nn.Linear(16, 10, bias=False)
        self.head.weight = self.characters.weight

    def forward(self, x: Tensor) -> Tensor:
        batch, time = x.shape
        query, key, value = self.mixed(self.characters(x)).view(batch, time, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        logits: Tensor = self.head(mixed.transpose(1, 2).flatten(2))
        return logits.mean(1)


class Last(nn.Module):
    """What a recurrent network says at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(4, 10, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.cell(x)[0][:, -1]
        return last


def classifier(kind: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Closure]:
    """Return a network of ten classes and its loss on a fixed batch."""
    # The global state is put back, so that no test depends on another.
    with torch.random.fork_rng([]):
        torch.manual_seed(11)
        model, x = _made(kind)
        y = torch.arange(12) % 10
    model = model.to(dtype)
    given = x.to(dtype) if x.is_floating_point() else x
    return model, lambda: functional.cross_entropy(model(given), y)


def _made(kind: str) -> tuple[nn.Module, Tensor]:
    if kind == "mlp":
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 10)), torch.randn(12, 6)
    if kind == "cnn":
        layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(8, 10)), torch.randn(12, 3, 8, 8)
    if kind == "lstm":
        return Last(), torch.randn(12, 5, 4)
    return Attending(), torch.randint(0, 10, (12, 7))


def timeless(found: Sharpness) -> Sharpness:
    """Return what does not depend on the clock."""
    return replace(found, seconds=0.0)


class Clock:
    """Time that passes only when a loss is evaluated, for the modules that read it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, closure: Closure, seconds: float) -> None:
        self.now = 0.0
        self._closure, self._seconds = closure, seconds
        for module in (compiled, evaluating, model_state_guard):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)

    def __call__(self) -> Tensor:
        self.now += self._seconds
        return self._closure()
