"""Evaluation of all directions in one call of the closure with ``vmap``, if possible."""

import warnings
from time import perf_counter
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.modules import module as _hooks

if TYPE_CHECKING:
    from torch import Tensor

    from nissa.diagnostics.sharpness.average import Perturbation
    from nissa.diagnostics.sharpness.evaluating import Closure, Evaluator

MAX_STACKED_BYTES: Final = 2**26
"""Maximum size of the stacked weights of all directions. The activations take many times as much memory."""


class Calling(nn.Module):
    """Module whose forward pass is a closure, so that ``functional_call`` can replace the weights that it uses.

    Args:
        model: Model whose weights the closure uses.
        closure: Returns the loss; called without arguments.
    """

    def __init__(self, model: nn.Module, closure: "Closure") -> None:
        super().__init__()
        self.model = model
        # In a tuple: a closure that is a module would be registered, and its weights swapped twice and not restored.
        self._closures = (closure,)

    def forward(self) -> "Tensor":
        """Return the loss."""
        return self._closures[0]()  # type: ignore[return-value]  # what is no tensor fails in vmap


def evaluate_together(evaluator: "Evaluator", perturbation: "Perturbation") -> "list[float] | None":
    """Return the loss in each direction, or None if one call cannot evaluate them."""
    kept = perturbation.directions.kept
    if not kept or not vectorisable(perturbation.model):
        return None
    evaluator.begin()
    started = perf_counter()
    try:
        with torch.no_grad():
            losses: list[float] = _together(evaluator, perturbation, kept).flatten().tolist()
    except Exception:  # noqa: BLE001 - whatever vmap cannot do, one call for each direction can; an error comes again there
        return None
    # If all losses equal the unperturbed one, the closure does not read the replaced weights, as in a captured graph.
    if len(losses) != len(kept) or set(losses) == {evaluator.base}:
        return None
    evaluator.took(perf_counter() - started, len(kept))
    return losses


def _together(evaluator: "Evaluator", perturbation: "Perturbation", kept: "list[list[Tensor]]") -> "Tensor":
    names = {weight.data_ptr(): name for name, weight in perturbation.model.named_parameters()}
    moved = {
        f"model.{names[weight.data_ptr()]}": torch.stack(steps).mul_(length).add_(before).to(before.dtype)
        for weight, before, length, *steps in zip(
            perturbation.weights, perturbation.kept, perturbation.lengths, *kept, strict=True
        )
    }
    module = Calling(perturbation.model, evaluator.closure)
    with warnings.catch_warnings():
        # An operation without a batching rule is only slower, and `Choosing` measures the time.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        losses: Tensor = vmap(lambda weights: functional_call(module, weights, ()), randomness="same")(moved)
    return losses


def vectorisable(model: nn.Module) -> bool:
    """Whether a model has no hooks, which would receive batched tensors."""
    seen = any(
        getattr(_hooks, name)
        for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    )
    return not seen and not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())  # noqa: SLF001
