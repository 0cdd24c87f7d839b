"""Average-case sharpness: the change of the loss when all weights are perturbed at random.

The perturbation of a tensor ``w`` is ``d = scale * ||w|| * g / ||g||`` with ``g`` from ``N(0, 1)``, and the measure is
the mean of ``|L(w + d) - L(w)| / scale``. Where the gradient vanishes, its expectation is to second order
``scale / 2 * sum(||w||**2 * trace(H) / n)`` over the tensors, where ``H`` is the Hessian of the loss in the ``n``
elements of a tensor. As an average over all directions, it hardly depends on the sharpest one.
"""

from math import isfinite, sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from nissa.diagnostics.sharpness.compiled import CompiledEvaluation
from nissa.diagnostics.sharpness.directions import Directions
from nissa.diagnostics.sharpness.evaluating import Evaluator
from nissa.diagnostics.sharpness.measured import Sharpness
from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard
from nissa.diagnostics.sharpness.perturbation import Perturbation
from nissa.diagnostics.sharpness.support import require_support
from nissa.torch_compat import foreach_copy_

if TYPE_CHECKING:
    from torch import nn

    from nissa.diagnostics.sharpness.evaluating import Closure

METHOD = "average_case"


def average_case(
    model: "nn.Module",
    closure: "Closure",
    *,
    samples: int = 5,
    scale: float = 0.01,
    budget: float | None = None,
    directions: Directions | None = None,
    compiled: bool = False,
) -> Sharpness:
    """Measure the change of the loss in random directions; the model is restored afterwards.

    Args:
        model: Model whose trainable parameters are perturbed, in evaluation mode.
        closure: Returns the loss of a fixed batch.
        samples: Number of directions.
        scale: Length of the perturbation of a tensor over its norm.
        budget: Time limit in seconds, None for none.
        directions: Directions to reuse across measurements, by default new ones.
        compiled: Evaluate all directions in one call of the closure, with ``torch.func.vmap`` and ``torch.compile``.
            If that is not possible, log the reason and evaluate them one by one.

    Raises:
        ConfigurationError: The closure does not return a single number, or the model is sharded.
    """
    require_support(model)
    with ModelStateGuard(model, []) as guard:
        evaluator = Evaluator(closure, guard, budget)
        perturbation = Perturbation.of(model, guard, scale, directions or Directions(), samples)
        return measure(evaluator, perturbation, scale, CompiledEvaluation() if compiled else None)


def measure(
    evaluator: Evaluator, perturbation: Perturbation, scale: float, compiled: CompiledEvaluation | None = None
) -> Sharpness:
    """Measure within an active `ModelStateGuard`."""
    first, started, samples = evaluator.evaluations, evaluator.seconds, perturbation.samples
    base, losses = evaluator.base, None
    # One call cannot stop within the budget, so let the loop measure as many directions as the budget allows.
    if compiled is not None and evaluator.affords(samples + 1):
        losses = compiled.losses(evaluator, perturbation)
    if losses is None:
        losses = _one_by_one(evaluator, perturbation)
    else:
        base, *losses = losses
    changes = [abs(loss - base) / scale for loss in losses]
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


def _one_by_one(evaluator: Evaluator, perturbation: Perturbation) -> list[float]:
    losses: list[float] = []
    while len(losses) < perturbation.samples and evaluator.affords():
        perturbation.perturb(len(losses))
        losses.append(evaluator.loss())
    foreach_copy_(perturbation.weights, perturbation.kept)
    return losses
