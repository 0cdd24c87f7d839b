"""Average-case sharpness: the change of the loss when all weights are perturbed at random.

The perturbation of a tensor ``w`` is ``d = scale * ||w|| * g / ||g||`` with ``g`` from ``N(0, 1)``, and the measure is
the mean of ``|L(w + d) - L(w)| / scale``. Where the gradient vanishes, its expectation is to second order
``scale / 2 * sum(||w||**2 * trace(H) / n)`` over the tensors, where ``H`` is the Hessian of the loss in the ``n``
elements of a tensor. As an average over all directions, it hardly depends on the sharpest one.
"""

from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import torch

from nissa.diagnostics.sharpness.directions import Directions, wide
from nissa.diagnostics.sharpness.evaluating import Evaluator
from nissa.diagnostics.sharpness.measured import Sharpness
from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard
from nissa.diagnostics.sharpness.support import require_support
from nissa.diagnostics.sharpness.vectorised import evaluate_together

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nissa.diagnostics.sharpness.directions import DirectionsOf
    from nissa.diagnostics.sharpness.evaluating import Closure

METHOD = "average_case"


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Perturbation of a model: its trainable weights, their original values, and directions with a length per tensor."""

    model: "nn.Module"
    weights: "list[Tensor]"
    kept: "list[Tensor]"
    lengths: list[float]
    directions: "DirectionsOf"

    @classmethod
    def of(
        cls, model: "nn.Module", guard: ModelStateGuard, scale: float, directions: Directions, samples: int
    ) -> "Perturbation":
        """Return the perturbation of the trainable, non-empty weights of a model."""
        pairs = zip(guard.parameters, guard.weights, guard.kept, strict=True)
        found = [(weight, kept) for parameter, weight, kept in pairs if parameter.requires_grad and kept.numel()]
        weights, kept = [each for each, _ in found], [each for _, each in found]
        norms: Any = torch._foreach_norm([wide(each) for each in kept]) if kept else []  # noqa: SLF001 - see directions.py
        lengths = [scale * length for length in _numbers(norms)]
        return cls(model, weights, kept, lengths, directions.of(kept, samples))

    def perturb(self, index: int) -> None:
        """Set the weights to their original values plus one direction."""
        moves = zip(self.weights, self.kept, self.directions[index], self.lengths, strict=True)
        for weight, before, direction, length in moves:
            # One pass without allocation; on a CPU this is faster than torch's functions for lists of tensors.
            torch.add(before, direction, alpha=length, out=weight)


def average_case(
    model: "nn.Module",
    closure: "Closure",
    *,
    samples: int = 5,
    scale: float = 0.01,
    budget: float | None = None,
    directions: Directions | None = None,
    vectorised: bool = False,
) -> Sharpness:
    """Measure the change of the loss in random directions; the model is restored afterwards.

    Args:
        model: Model whose trainable parameters are perturbed, in evaluation mode.
        closure: Returns the loss of a fixed batch.
        samples: Number of directions.
        scale: Length of the perturbation of a tensor over its norm.
        budget: Time limit in seconds, None for none.
        directions: Directions to reuse across measurements, by default new ones.
        vectorised: Evaluate all directions in one call of the closure with ``torch.func.vmap``, if possible.

    Raises:
        ConfigurationError: The closure does not return a single number, or the model is sharded.
    """
    require_support(model)
    with ModelStateGuard(model, []) as guard:
        evaluator = Evaluator(closure, guard, budget)
        perturbation = Perturbation.of(model, guard, scale, directions or Directions(), samples)
        return measure(evaluator, perturbation, samples, scale, vectorised=vectorised)


def measure(
    evaluator: Evaluator, perturbation: Perturbation, samples: int, scale: float, *, vectorised: bool = False
) -> Sharpness:
    """Measure within an active `ModelStateGuard`."""
    first, started = evaluator.evaluations, evaluator.seconds
    losses = evaluate_together(evaluator, perturbation) if vectorised and evaluator.affords(samples) else None
    if losses is None:
        losses = _one_by_one(evaluator, perturbation, samples)
    changes = [abs(loss - evaluator.base) / scale for loss in losses]
    return Sharpness(
        method=METHOD,
        value=fmean(changes) if changes else None,
        standard_error=_standard_error(changes),
        evaluations=evaluator.evaluations - first + 1,
        seconds=evaluator.seconds - started,
        complete=len(changes) == samples,
        reason=None if changes else "the budget did not suffice for one perturbation",
    )


def _standard_error(changes: list[float]) -> float | None:
    return stdev(changes) / sqrt(len(changes)) if len(changes) > 1 and all(map(isfinite, changes)) else None


def _one_by_one(evaluator: Evaluator, perturbation: Perturbation, samples: int) -> list[float]:
    losses: list[float] = []
    while len(losses) < samples and evaluator.affords():
        perturbation.perturb(len(losses))
        losses.append(evaluator.loss())
    torch._foreach_copy_(perturbation.weights, perturbation.kept)
    return losses


def _numbers(norms: "list[Tensor]") -> list[float]:
    """Copy scalars from several devices to the host, with one copy per device."""
    found: dict[int, float] = {}
    for device in dict.fromkeys(norm.device for norm in norms):
        here = [index for index, norm in enumerate(norms) if norm.device == device]
        found.update(zip(here, torch.stack([norms[index] for index in here]).tolist(), strict=True))
    return [found[index] for index in range(len(norms))]
