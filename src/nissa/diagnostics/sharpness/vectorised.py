"""All directions in one call of the closure, where that is possible."""

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
"""Weights in all directions take at most so much memory, and activations many times that."""


class Calling(nn.Module):
    """A module whose forward pass is a closure, so that the weights it uses can be given to it.

    Args:
        model: Whose weights the closure uses.
        closure: Called without arguments.
    """

    def __init__(self, model: nn.Module, closure: "Closure") -> None:
        super().__init__()
        self.model = model
        # Not as an attribute: a closure that is a module would have its weights swapped twice, and not come back.
        self._closures = (closure,)

    def forward(self) -> "Tensor":
        """Return the loss."""
        return self._closures[0]()  # type: ignore[return-value]  # what is no tensor fails in vmap


def evaluate_together(evaluator: "Evaluator", perturbation: "Perturbation") -> "list[float] | None":
    """Return the loss in all directions, or None where that is not possible in one call."""
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
    # Weights that the closure does not take from the model, as in a captured graph, do not change its loss.
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
        # That an operation has no batching rule costs time, which whoever chooses this way measures.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        losses: Tensor = vmap(lambda weights: functional_call(module, weights, ()), randomness="same")(moved)
    return losses


def vectorisable(model: nn.Module) -> bool:
    """Whether nobody else sees the batched tensors that go through a model."""
    seen = any(
        getattr(_hooks, name)
        for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    )
    return not seen and not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())  # noqa: SLF001
