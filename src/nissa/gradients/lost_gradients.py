"""Reasons why a step has no gradients of the watched model."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def reason_of_loss(model: "torch.nn.Module", groups: Iterable[Mapping[str, Any]], *, found_any: bool) -> str | None:
    """Return what a sampled step lost and how to fix it; None if the optimizer used gradients of the model.

    Args:
        model: The watched model.
        groups: Parameter groups of its optimizer.
        found_any: Whether any of their parameters had a gradient.
    """
    trained = [parameter for group in groups for parameter in group["params"]]
    owned = {id(parameter) for parameter in model.parameters()}
    if trained and not any(id(parameter) in owned for parameter in trained):
        return (
            f"The gradients of {type(model).__name__} are lost: its optimizer holds none of its parameters any more. "
            "load_state_dict(assign=True) and the like replace parameters: call them before the optimizer is built, and "
            "watch() that one."
        )
    if not found_any and any(parameter.requires_grad for parameter in trained):
        return (
            "No parameter of the optimizer has a gradient in this step, so that none is exported: backward() was not "
            "called before step(), zero_grad() was called in between, or the loss is detached from the parameters, "
            "for example by detach(), item() or no_grad()."
        )
    return None
