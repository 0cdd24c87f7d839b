"""Compares what a run exported with a reference that the loop records by hand, in float64."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from nissa import MemoryBackend, Run
from nissa.hub.measurements import GradientsMeasured, StepMeasured


@dataclass(frozen=True, slots=True)
class Reference:
    """Loss and gradients of one step, immediately before the weights change.

    Args:
        loss: Mean of the losses that belong to the step; None if the loop logs none.
        gradients: Gradients by parameter, float64.
    """

    loss: float | None
    gradients: dict[str, torch.Tensor]


@dataclass
class Observed:
    """A run of a training loop, and its reference.

    Args:
        run: The run that the loop uses, as anybody's loop would.
        memory: Backend of that run.
    """

    run: Run
    memory: MemoryBackend
    references: dict[str | None, list[Reference]] = field(default_factory=lambda: defaultdict(list))

    def expect(
        self,
        model: nn.Module,
        loss: torch.Tensor | list[float] | None = None,
        *,
        divisor: float = 1.0,
        name: str | None = None,
        part: Collection[torch.Tensor] | None = None,
    ) -> None:
        """Record what the step that follows uses.

        Args:
            model: Model with the gradients.
            loss: Loss of the step, or the losses of which it is the mean.
            divisor: Loss scale that the gradients still contain.
            name: Name of the watch.
            part: Parameters of its optimizer, by default all.
        """
        gradients = {
            parameter: tensor.grad.detach().to_dense().double() / divisor
            for parameter, tensor in model.named_parameters()
            if tensor.grad is not None and (part is None or any(tensor is each for each in part))
        }
        losses = loss.detach() if isinstance(loss, torch.Tensor) else loss
        mean = None if losses is None else float(torch.as_tensor(losses, dtype=torch.float64).mean())
        self.references[name].append(Reference(mean, gradients))

    def check(self, tolerance: float, *, measured: bool = True) -> None:
        """Compare step numbers, losses and the norm, sum and largest magnitude of every gradient, after the run.

        Args:
            tolerance: Relative.
            measured: Whether this process measures gradients: of several replicas, one does.
        """
        assert self.references
        steps = [each for each in self.memory.measurements if isinstance(each, StepMeasured)]
        samples = [each for each in self.memory.measurements if isinstance(each, GradientsMeasured)]
        assert {each.model_name for each in steps} == set(self.references)
        for name, references in self.references.items():
            mine = [each for each in steps if each.model_name == name]
            assert [each.step for each in mine] == [*range(len(references))]
            for step, reference in zip(mine, references, strict=True):
                assert step.loss == (None if reference.loss is None else pytest.approx(reference.loss, rel=tolerance))
            sampled = [each for each in samples if each.model_name == name]
            assert [each.step for each in sampled] == [*range(len(references) * measured)]
            for sample, reference in zip(sampled, references[: len(sampled)], strict=True):
                _agrees(sample, reference.gradients, tolerance)


def _agrees(sample: GradientsMeasured, gradients: dict[str, torch.Tensor], tolerance: float) -> None:
    assert sorted(sample.names) == sorted(gradients)
    for row, name in enumerate(sample.names):
        moments, values = sample.moments.select([row]), gradients[name]
        assert moments.count[0] == values.numel()
        assert moments.norm[0] == pytest.approx(values.norm().item(), rel=tolerance)
        assert moments.abs_max[0] == pytest.approx(values.abs().max().item(), rel=tolerance)
        total = values.abs().sum().item()
        assert moments.total[0] == pytest.approx(values.sum().item(), rel=tolerance, abs=tolerance * total)
    whole = torch.cat([values.flatten() for values in gradients.values()]).norm().item()
    assert sample.health.global_norm == pytest.approx(whole, rel=tolerance)
