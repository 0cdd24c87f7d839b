"""Next update of an optimizer, computed by a step of a copy."""

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

from nissa.diagnostics.sharpness.directions import wide
from nissa.diagnostics.sharpness.evaluating import ClosureModule
from nissa.torch_compat import foreach_add, foreach_copy_

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from nissa.diagnostics.sharpness.evaluating import Evaluator
    from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard


class NoUpdateError(Exception):
    """No update is available; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Update:
    """Change of the weights by one optimizer step.

    Args:
        weights: Weights to move, which share memory with the parameters.
        before: Original weights, half precision widened to float32.
        change: Change of the weights by one step.
        slope: Inner product of gradient and change: the change of the loss by one step, to first order.
        learning_rate: Learning rate of the first group with one above 0.
    """

    weights: "list[Tensor]"
    before: "list[Tensor]"
    change: "list[Tensor]"
    slope: float
    learning_rate: float

    def move(self, factor: float) -> None:
        """Set the weights to the result of a step with ``factor`` times the learning rate."""
        moved = foreach_add(self.before, self.change, alpha=factor)
        foreach_copy_(self.weights, moved)


def next_update(model: "nn.Module", optimizer: "Optimizer", evaluator: "Evaluator", guard: "ModelStateGuard") -> Update:
    """Return the optimizer's next update for the gradient of this loss.

    Raises:
        NoUpdateError: The update cannot be computed, for example because the optimizer cannot be copied.
    """
    learning_rate = _learning_rate(optimizer)
    gradients = _gradients(model, evaluator)
    copied = _copy(optimizer)
    old = [each for group in optimizer.param_groups for each in group["params"]]
    new = [each for group in copied.param_groups for each in group["params"]]
    for one, other in zip(old, new, strict=True):
        other.grad = gradients.get(id(one))
    _step(copied)
    moved = [
        (one.data, wide(kept), wide(other.data) - wide(kept), gradients[id(one)])
        for one, other, kept in _with_kept(old, new, guard)
        if id(one) in gradients
    ]
    if not moved:
        raise NoUpdateError("the loss does not depend on what the optimizer trains")
    weights, before, change, used = (list(each) for each in zip(*moved, strict=True))
    return Update(weights, before, change, _slope(used, change), learning_rate)


def _learning_rate(optimizer: "Optimizer") -> float:
    rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
    found = next((rate for rate in rates if rate > 0), None)
    if found is None:
        raise NoUpdateError("the learning rate is 0")
    return found


def _gradients(model: "nn.Module", evaluator: "Evaluator") -> "dict[int, Tensor]":
    """Return gradients by parameter id; the forward pass uses copies of the parameters, so that no parameter hook runs."""
    evaluator.begin()
    # Leave inference mode, since inference tensors cannot be differentiated.
    with torch.inference_mode(mode=False), torch.enable_grad():
        trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        leaves = [each.detach().clone().requires_grad_() for _, each in trained]
        weights = {f"model.{name}": leaf for (name, _), leaf in zip(trained, leaves, strict=True)}
        loss = functional_call(ClosureModule(model, evaluator.closure), weights, ())
        if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
            raise NoUpdateError("the closure returns a loss that knows no gradient: leave out no_grad() and item()")
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
    optional: tuple[Tensor | None, ...] = found  # None for unused leaves, which torch's annotations omit
    pairs = zip(trained, optional, strict=True)
    return {id(each): gradient for (_, each), gradient in pairs if gradient is not None}


def _copy(optimizer: "Optimizer") -> "Optimizer":
    try:
        # The copy has no hooks or schedulers, since the pickled form of an optimizer excludes them.
        return deepcopy(optimizer)
    except Exception as error:
        raise NoUpdateError(f"the optimizer cannot be copied: {error}") from error


def _step(optimizer: "Optimizer") -> None:
    """Call ``step()`` without the profiling wrapper, which would run global optimizer hooks."""
    step: Any = type(optimizer).step
    if getattr(step, "hooked", False):
        step = step.__wrapped__
    try:
        with torch.no_grad():
            step(optimizer)
    except Exception as error:
        raise NoUpdateError(f"a copy of the optimizer cannot step by itself: {error}") from error


def _with_kept(
    old: "list[Tensor]", new: "list[Tensor]", guard: "ModelStateGuard"
) -> "list[tuple[Tensor, Tensor, Tensor]]":
    kept = {id(each): value for each, value in zip(guard.parameters, guard.kept, strict=True)}
    return [(one, other, kept[id(one)]) for one, other in zip(old, new, strict=True)]


def _slope(gradients: "list[Tensor]", change: "list[Tensor]") -> float:
    parts = [(one.double() * other.double()).sum().cpu() for one, other in zip(gradients, change, strict=True)]
    return float(torch.stack(parts).sum())
