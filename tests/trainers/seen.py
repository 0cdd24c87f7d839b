"""What a run exported during a training, and the same training in plain float64 PyTorch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import nissa
from nissa import EventType, MemoryBackend
from nissa.hub.measurements import GradientsMeasured, LoggedMeasured, StepMeasured, StepSkipped, ValidationMeasured

SETTINGS: dict[str, Any] = {"profile": "diagnostic", "console__enabled": False, "overhead_budget": None}
"""Settings under which every step is measured."""

BATCHES, BATCH = 5, 4


def data(seed: int = 0) -> torch.utils.data.TensorDataset:
    """Return inputs and targets of a regression, as many as five batches of four."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCHES * BATCH, 3, generator=generator, dtype=torch.float64)
    return torch.utils.data.TensorDataset(x, x.sum(dim=1, keepdim=True).sin())


def batches(dataset: torch.utils.data.Dataset[Any]) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of a dataset, in their order."""
    return torch.utils.data.DataLoader(dataset, batch_size=BATCH)


def network() -> nn.Sequential:
    """Return a small network in double precision, the same at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def mse(model: nn.Module, batch: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean squared error of a batch."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


@dataclass
class Truth:
    """Values of each step, computed without Nissa and without a trainer."""

    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


def train_plainly(epochs: int = 1, accumulate: int = 1, clip: float | None = None, lr: float = 0.1) -> Truth:
    """Train the network as a textbook does: losses of accumulated batches are averaged, then clipped."""
    truth, model = Truth(), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        everything = list(batches(data()))
        for first in range(0, len(everything), accumulate):
            group = everything[first : first + accumulate]
            optimizer.zero_grad()
            losses = [mse(model, batch) for batch in group]
            sum(loss / accumulate for loss in losses).backward()  # type: ignore[union-attr]
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            truth.losses.append(sum(loss.item() for loss in losses) / len(losses))
            truth.norms.append(norm.item())
            truth.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            optimizer.step()
    return truth


class Seen:
    """Measurements and events of the run that a training starts."""

    def __init__(self) -> None:
        self.memory = MemoryBackend()

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of a callback."""
        return {**SETTINGS, "backends": [self.memory], **more}

    def _all(self, kind: type[Any]) -> list[Any]:
        nissa.get_hub().flush(10)
        return [each for each in self.memory.measurements if isinstance(each, kind)]

    @property
    def steps(self) -> list[StepMeasured]:
        return self._all(StepMeasured)

    @property
    def samples(self) -> list[GradientsMeasured]:
        return self._all(GradientsMeasured)

    @property
    def skipped(self) -> int:
        return sum(each.count for each in self._all(StepSkipped))

    @property
    def validations(self) -> list[ValidationMeasured]:
        return self._all(ValidationMeasured)

    @property
    def losses(self) -> list[float | None]:
        return [step.loss for step in self.steps]

    @property
    def phases(self) -> set[str]:
        """Phases of a step that were measured, of at least one step."""
        return {phase for step in self.steps for phase in step.phases}

    def scalars(self, name: str) -> list[float]:
        """Return the values of a scalar of the script."""
        return [each.scalars[name] for each in self.logged if name in each.scalars]

    @property
    def logged(self) -> list[LoggedMeasured]:
        return self._all(LoggedMeasured)

    def items(self, kind: str) -> int:
        """Return the number of items of a kind."""
        return sum(each.items.get(kind, 0) for each in self.logged)

    def of_type(self, event_type: str) -> list[Any]:
        nissa.get_hub().flush(10)
        return self.memory.of_type(event_type)

    @property
    def epochs(self) -> list[int | None]:
        return [event.epoch for event in self.of_type(EventType.EPOCH_COMPLETED)]

    def agrees(self, truth: Truth, rename: Callable[[str], str] = lambda name: name, rel: float = 1e-9) -> None:
        """Check losses, gradients and the order of steps against the plain training."""
        assert [step.step for step in self.steps] == list(range(len(truth.losses)))
        assert self.losses == pytest.approx(truth.losses, rel=rel)
        assert len(self.samples) == len(truth.gradients)
        for sample, gradients in zip(self.samples, truth.gradients, strict=True):
            norms = {name: gradients_of.norm().item() for name, gradients_of in gradients.items()}
            found = dict(zip(sample.names, sample.moments.norm, strict=True))
            assert found == pytest.approx({rename(name): norm for name, norm in norms.items()}, rel=rel)
