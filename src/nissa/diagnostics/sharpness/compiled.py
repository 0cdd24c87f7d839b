"""Evaluation of all random directions in one call, vectorised by ``vmap`` and compiled by ``torch.compile``."""

import logging
import warnings
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.func import functional_call, vmap

from nissa.diagnostics.sharpness.directions import bytes_of
from nissa.diagnostics.sharpness.evaluating import ClosureModule
from nissa.torch_compat import contains_compiled, has_forward_hooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from nissa.diagnostics.sharpness.evaluating import Evaluator
    from nissa.diagnostics.sharpness.perturbation import Perturbation

MAX_STACKED_BYTES: Final = 2**26
"""Maximum size of the stacked weights of all directions. The activations take many times as much memory."""

BACKEND = "inductor"
"""Backend of ``torch.compile``."""

_logger = logging.getLogger("nissa")


class CompiledEvaluation:
    """Evaluation of the loss in all directions with one compiled call.

    After a failure it is not tried again, because a compilation may take half a minute. The reason is logged.
    """

    def __init__(self) -> None:
        self._failed = False

    def losses(self, evaluator: "Evaluator", perturbation: "Perturbation") -> list[float] | None:
        """Return the loss of the unchanged weights, then the loss in each direction.

        The compiled call includes the unchanged weights, because it rounds differently from `Evaluator.base`.

        Returns:
            None if one call cannot evaluate them; the model is unchanged.
        """
        if self._failed:
            return None
        started = perf_counter()
        found: list[float] = []
        reason = _obstacle(evaluator, perturbation)
        if reason is None:
            try:
                found = _evaluate(evaluator, perturbation)
            except Exception as error:  # noqa: BLE001 - the loop can evaluate what vmap or a compiler cannot
                reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            else:
                reason = _flaw(found, perturbation.samples)
        if reason is not None:
            self._failed = True
            evaluator.extend(perf_counter() - started)
            _logger.warning("Sharpness is measured without compilation (sharpness.compile): %s. Logged once.", reason)
            return None
        evaluator.took(perf_counter() - started, len(found))
        return found


def _obstacle(evaluator: "Evaluator", perturbation: "Perturbation") -> str | None:
    """Return the reason why no compilation is tried."""
    if not perturbation.kept:
        return "the model has no trainable weights"
    if None in perturbation.names:
        return "the optimizer trains weights outside the model"
    if perturbation.samples * bytes_of(perturbation.kept) > MAX_STACKED_BYTES:
        return f"the weights in all directions exceed {MAX_STACKED_BYTES >> 20} MB"
    if evaluator.draws:
        return "the loss uses random numbers, and compiled code draws other ones"
    return _untraceable(perturbation.model)


def _untraceable(model: "nn.Module") -> str | None:
    """Return the reason why the compiler or ``vmap`` would fail or disturb the caller."""
    if contains_compiled(model):
        return "the model is wrapped by torch.compile(), and the wrapper cannot be traced"
    return "a module has hooks, which would receive batched tensors" if has_forward_hooks(model) else None


def _flaw(losses: list[float], samples: int) -> str | None:
    """Return the reason why the losses of a compiled call cannot be used."""
    if len(losses) != samples + 1:
        return "the closure does not return one number"
    # The closure has kept references to the parameters, or replays a captured graph.
    return "the closure does not read its weights from the model" if len(set(losses)) == 1 else None


def _evaluate(evaluator: "Evaluator", perturbation: "Perturbation") -> list[float]:
    module = ClosureModule(perturbation.model, evaluator.closure)
    versions = {
        f"model.{name}": stacked for name, stacked in zip(perturbation.names, perturbation.stacked(), strict=True)
    }
    evaluate = _compiled(BACKEND)
    evaluator.begin()
    # `ModelStateGuard` disables compilation of the caller's model; the stance enables it for this call alone.
    with torch.no_grad(), torch.compiler.set_stance("default"), warnings.catch_warnings():
        # An operation without a batching rule is only slower.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        losses: list[float] = evaluate(module, versions).flatten().tolist()
    return losses


@cache  # for a small network, torch.compile() itself takes a quarter of the time of a measurement
def _compiled(backend: Any) -> "Callable[[ClosureModule, dict[str, Tensor]], Tensor]":
    # A graph break would compile parts of the caller's model as well, so that it is an error here.
    return torch.compile(_losses, backend=backend, fullgraph=True)


def _losses(module: ClosureModule, versions: "dict[str, Tensor]") -> "Tensor":
    """Return the losses of several versions of the weights, which are stacked in the first dimension."""
    losses: Tensor = vmap(lambda weights: functional_call(module, weights, ()), randomness="same")(versions)
    return losses
