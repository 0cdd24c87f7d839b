"""Random perturbation of the weights of a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nissa.diagnostics.sharpness.directions import Directions, wide
from nissa.torch_compat import foreach_norm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nissa.diagnostics.sharpness.directions import DirectionsOf
    from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Perturbation of a model: its trainable weights, their original values, and directions with a length per tensor.

    Args:
        model: Model whose weights are perturbed.
        names: Name of each weight in the model; None if only the optimizer has it.
        weights: Weights, which share memory with the parameters.
        kept: Original values.
        lengths: Length of the perturbation of each weight.
        directions: Directions of unit length.
        samples: Number of directions.
    """

    model: "nn.Module"
    names: list[str | None]
    weights: "list[Tensor]"
    kept: "list[Tensor]"
    lengths: list[float]
    directions: "DirectionsOf"
    samples: int

    @classmethod
    def of(
        cls, model: "nn.Module", guard: "ModelStateGuard", scale: float, directions: Directions, samples: int
    ) -> "Perturbation":
        """Return the perturbation of the trainable, non-empty weights of a model."""
        triples = zip(guard.parameters, guard.weights, guard.kept, strict=True)
        found = [each for each in triples if each[0].requires_grad and each[2].numel()]
        by_id = {id(parameter): name for name, parameter in model.named_parameters()}
        names = [by_id.get(id(parameter)) for parameter, _, _ in found]
        weights, kept = [weight for _, weight, _ in found], [values for _, _, values in found]
        norms: Any = foreach_norm([wide(each) for each in kept]) if kept else []
        lengths = [scale * norm for norm in _numbers(norms)]
        return cls(model, names, weights, kept, lengths, directions.of(kept, samples), samples)

    def perturb(self, index: int) -> None:
        """Set the weights to their original values plus one direction."""
        moves = zip(self.weights, self.kept, self.directions[index], self.lengths, strict=True)
        for weight, before, direction, length in moves:
            # One pass without allocation; on a CPU this is faster than torch's functions for lists of tensors.
            torch.add(before, direction, alpha=length, out=weight)

    def stacked(self) -> "list[Tensor]":
        """Return each weight without and with each perturbation, stacked in a new first dimension."""
        directions = zip(*(self.directions[index] for index in range(self.samples)), strict=True)
        return [
            # Add before the conversion to the weight's type, as `perturb` does: half precision would round the direction.
            torch.cat((before.unsqueeze(0), torch.add(before, torch.stack(steps), alpha=length).to(before.dtype)))
            for before, length, steps in zip(self.kept, self.lengths, directions, strict=True)
        ]


def _numbers(norms: "list[Tensor]") -> list[float]:
    """Copy scalars from several devices to the host, with one copy per device."""
    found: dict[int, float] = {}
    for device in dict.fromkeys(norm.device for norm in norms):
        on_device = [index for index, norm in enumerate(norms) if norm.device == device]
        found.update(zip(on_device, torch.stack([norms[index] for index in on_device]).tolist(), strict=True))
    return [found[index] for index in range(len(norms))]
