"""Values for contracts that are computed on the device: initial weights, weights that stand still, gradients that are kept.

Each reads a few elements per parameter, so that the cost does not grow with the size of the network.
"""

import weakref
from collections.abc import Iterable
from itertools import islice
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nissa.gradients.parameter_facts import comparable, elements
from nissa.gradients.selection import names_of
from nissa.torch_compat import foreach_norm, version_of

_PARAMETERS: Final = 16
_ELEMENTS: Final = 64
_MATRICES: Final = 48
"""Maximum number of weight matrices whose initial values are examined: the bits of one float64."""

_INITIAL_ELEMENTS: Final = 4_096
_CLEARED: Final = 100
"""Steps in a row with cleared gradients after which a program is not looked at any more."""

_STEPS: Final = 6
"""Consecutive steps with kept gradients from which their values are compared."""


class StillWeights:
    """Elements with a gradient that a step leaves as they are.

    Attributes:
        half: Whether the gradients of the last step were float16.
    """

    def __init__(self) -> None:
        # Weak references: a step that raises has no end at which strong ones would be dropped.
        self._before: tuple[list[weakref.ref[Tensor]], Tensor, Tensor] | None = None
        self.half = False

    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """Copy elements of weights and gradients."""
        parameters = _probed(optimizer)
        gradients = [each.grad for each in parameters if each.grad is not None]
        self.half = bool(gradients) and all(each.dtype is torch.float16 for each in gradients)
        self._before = None
        if parameters:
            # The first elements of a gradient may all be zero, such as the first rows of an embedding.
            active = elements(gradients, _ELEMENTS) != 0
            self._before = list(map(weakref.ref, parameters)), elements(parameters, _ELEMENTS), active

    def after(self) -> dict[str, Tensor]:
        """Return the number of elements with a gradient, and of those among them that the step has left as they were."""
        before, self._before = self._before, None
        if before is None:
            return {}
        references, weights, active = before
        parameters = [each for reference in references if (each := reference()) is not None]
        if len(parameters) < len(references):
            return {}
        still = active & (weights == elements(parameters, _ELEMENTS))
        return {"active": active.sum(), "still": still.sum()}


class KeptGradients:
    """Gradients that are not cleared between two steps.

    The version of a gradient counts its changes in place. A gradient that is made anew begins again at 0. If it
    is kept, each step of a loop adds as many changes as the first step made, and one more, because the first backward pass
    makes the gradient and later ones add to it. If it is cleared in place, each step adds two more.

    Because code may change gradients in other ways, such as by copying into them, their values must agree: of a sum that is
    never cleared, the newest gradient soon is a small part.

    Attributes:
        steps: Consecutive steps at which the versions show that gradients were kept.
    """

    def __init__(self) -> None:
        self.steps = self._cleared = 0
        self._fresh: int | None = None
        self._before: tuple[int, int] | None = None
        self._started = False
        self._elements: Tensor | None = None

    def before(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Compare the version of a gradient with that after the previous step; return values if it was kept for long."""
        if self._cleared >= _CLEARED:
            return {}
        gradient = _gradient(optimizer)
        if gradient is None:
            self.steps, self._before, self._elements = 0, None, None
            return {}
        place, version = gradient.data_ptr(), version_of(gradient)
        if not self._started:  # the version of a gradient that is older than the watch has no meaning
            self._started, self._fresh = True, version if version < _STEPS else None
        kept = self._before is not None and self._before[0] == place and self._fresh is not None
        kept = kept and version - self._before[1] == self._fresh + 1  # type: ignore[index, operator]  # see above
        self.steps = self.steps + 1 if kept else 0
        self._cleared = 0 if kept else self._cleared + 1
        previous, self._elements = self._elements, None
        if not self.steps or previous is None or not comparable(gradient):
            return {}
        now = gradient.detach().view(-1)[: len(previous)]
        return {"new_share": (now - previous).square().sum() / now.square().sum()}

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Store the version of the gradient after a step, and some elements if it was kept for long."""
        if self._cleared >= _CLEARED:
            return
        gradient = _gradient(optimizer)
        self._before = None if gradient is None else (gradient.data_ptr(), version_of(gradient))
        if gradient is not None and self.steps >= _STEPS and self.steps % _STEPS < 2 and comparable(gradient):  # noqa: PLR2004
            self._elements = gradient.detach().view(-1)[:1024].clone()


class InitialWeights:
    """Weights before the first step: the norm of all, and matrices that are constant."""

    def read(self, model: nn.Module) -> tuple[tuple[str, ...], dict[str, Tensor]]:
        """Return the names of matrices, which of them are constant and zero, as bits of a number each, and the norm."""
        names, bits = self._matrices(model)
        parameters = [each.detach() for each in model.parameters() if comparable(each)]
        parameters = [each for each in parameters if each.device == parameters[0].device]
        norm = torch.stack([each.double() for each in foreach_norm(parameters)]).norm() if parameters else None
        return names, bits if norm is None else {**bits, "weight_norm": norm}

    @staticmethod
    def _matrices(model: nn.Module) -> tuple[tuple[str, ...], dict[str, Tensor]]:
        named = [(name, each) for name, each in names_of(model) if comparable(each) and _is_matrix(each)]
        chosen = named if len(named) <= _MATRICES else [*named[: _MATRICES - 1], named[-1]]
        if not chosen:
            return (), {}
        device = chosen[0][1].device
        chosen = [(name, each) for name, each in chosen if each.device == device]
        parts = [each.detach().view(-1)[:_INITIAL_ELEMENTS].double() for _, each in chosen]
        low, high = torch.stack([each.amin() for each in parts]), torch.stack([each.amax() for each in parts])
        bits = 2.0 ** torch.arange(len(chosen), device=device, dtype=torch.float64)
        constant = low == high
        return tuple(name for name, _ in chosen), {
            "constant": (constant * bits).sum(),
            "zero": ((constant & (low == 0)) * bits).sum(),
        }


def _is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter has at least two dimensions of more than one element."""
    return sum(size > 1 for size in parameter.shape) > 1


def _probed(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return some parameters with a dense gradient, all on one device: matrices, or else vectors.

    Biases are often near zero, where even a tiny update changes a number of low precision.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    found = _first(each for each in parameters if not is_lazy(each) and each.dim() > 1) or _first(parameters)
    return [each for each in found if each.device == found[0].device]


def _first(parameters: Iterable[Tensor]) -> list[Tensor]:
    return list(islice(filter(_usable, parameters), _PARAMETERS))


def _usable(parameter: Tensor) -> bool:
    gradient = parameter.grad
    return gradient is not None and comparable(parameter) and comparable(gradient)


def _gradient(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Return the gradient of the first parameter that has one, if it is a plain dense tensor."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient: Tensor | None = parameter.grad
            if gradient is not None:
                return gradient if type(gradient) is Tensor and gradient.layout is torch.strided else None
    return None
