"""Facts about the parameters of a model and its optimizer: held, replaced, without gradients, frozen."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nissa.gradients.selection import clean_name, names_of
from nissa.torch_compat import version_of

_MOST_COMPARED = 16
"""Parameters that no optimizer holds of which some elements are compared with their earlier values."""

_COMPARED = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
"""Types whose elements torch can compare and add on every device; float8 is not among them."""
_ELEMENTS = 64


class ParameterFacts:
    """Facts about parameters, over the steps of one watch.

    Args:
        held: Returns the parameters of all watched optimizers.
    """

    def __init__(self, held: Callable[[], Iterable[Tensor]]) -> None:
        self._held = held
        # Parameters that had no gradient yet, each with the number of its checks.
        self._waiting: list[tuple[weakref.ref[Tensor], int]] = []
        self._known: dict[int, weakref.ref[Tensor]] = {}
        self._checks = 0
        # Versions of parameters that no optimizer holds, and some of their elements, at the previous observation.
        self._versions: dict[str, int] = {}
        self._moved: set[str] = set()
        self._elements: tuple[tuple[str, ...], Tensor] | None = None

    def check(self, optimizer: torch.optim.Optimizer) -> None:
        """Note which parameters have a gradient at this step."""
        self._checks += 1
        if self._checks == 1:
            self._add(optimizer)
        if self._waiting:
            self._waiting = [
                (reference, checks + 1)
                for reference, checks in self._waiting
                if (parameter := reference()) is not None and parameter.grad is None
            ]

    def observe(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return fields of `ProgramFacts`, and device values by name."""
        self._add(optimizer)
        named = names_of(model)
        names = {id(parameter): name for name, parameter in named}
        waiting = [(parameter, checks) for each, checks in self._waiting if (parameter := each()) is not None]
        candidates = self._unheld(named)
        unheld = [pair for pair in candidates if self._rests(*pair)]
        self._versions = {name: version_of(each) for name, each in candidates}
        self._moved &= self._versions.keys()
        foreign = Counter(tuple(each.shape) for each, _ in waiting if id(each) not in names)
        ungraded = [(names[id(each)], n) for each, n in waiting if each.requires_grad and id(each) in names]
        graded = {name for name, each in named if each.grad is not None}
        facts = {
            "held": sum(each.requires_grad and id(each) in names for each in _parameters(optimizer)),
            "unheld": tuple(name for name, _ in unheld),
            "replaced": tuple(name for name, each in unheld if foreign[tuple(each.shape)]),
            "ungraded": tuple(ungraded),
            "alternatives": _alternatives(model, [name for name, _ in ungraded], graded),
            "only_normalization": _only_normalization(model, [each for _, each in named]),
        }
        return facts, self._changed(unheld)

    def _add(self, optimizer: torch.optim.Optimizer) -> None:
        """Begin to wait for the first gradient of parameters that are new in the optimizer; forget those that were freed."""
        self._known = {key: each for key, each in self._known.items() if each() is not None}
        for parameter in _parameters(optimizer):
            known = self._known.get(id(parameter))
            if known is None or known() is not parameter:
                self._known[id(parameter)] = reference = weakref.ref(parameter)
                self._waiting += [(reference, 0)] if parameter.grad is None else []

    def _unheld(self, named: list[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
        candidates = [(name, each) for name, each in named if each.requires_grad and each.grad is not None]
        held = set(map(id, self._held()))
        return [(name, each) for name, each in candidates if id(each) not in held]

    def _rests(self, name: str, parameter: Tensor) -> bool:
        """Whether a parameter was seen before, and was not changed in place since: an optimizer that is not watched would."""
        version = version_of(parameter)
        if self._versions.get(name, version) != version:
            self._moved.add(name)
        return name not in self._moved

    def _changed(self, unheld: list[tuple[str, nn.Parameter]]) -> dict[str, Tensor]:
        """Return how many elements of parameters that no optimizer holds have changed; fused steps leave the version as it is."""
        compared = [(name, each) for name, each in unheld[:_MOST_COMPARED] if comparable(each)]
        before, self._elements = self._elements, None
        if not compared:
            return {}
        names = tuple(name for name, _ in compared)
        now = elements([each for _, each in compared], _ELEMENTS)
        self._elements = names, now
        if before is None or before[0] != names or before[1].device != now.device:
            return {}
        return {"unheld_changed": (before[1] != now).sum()}


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def comparable(tensor: Tensor) -> bool:
    """Whether some elements of a tensor can be read at little cost: a view, and no part of a distributed tensor."""
    plain = type(tensor) in {Tensor, nn.Parameter} and tensor.layout is torch.strided
    return plain and tensor.dtype in _COMPARED and tensor.is_contiguous() and tensor.numel() > 0


def elements(tensors: list[Tensor], most: int) -> Tensor:
    """Return a copy of the first elements of each tensor, of those on the device of the first tensor."""
    return torch.cat([each.detach().view(-1)[:most] for each in tensors if each.device == tensors[0].device])


def _alternatives(model: nn.Module, names: list[str], graded: set[str]) -> tuple[str, ...]:
    """Return the parameters with a sibling in a list or dictionary of modules that has a gradient.

    Example:
        ``experts.3.weight`` has the sibling ``experts.0.weight`` if ``experts`` is a ``ModuleList``. The layers of a
        ``Sequential`` are no siblings, since all of them are used.
    """
    if not names:
        return ()
    containers = {
        clean_name(path) for path, each in model.named_modules() if isinstance(each, nn.ModuleList | nn.ModuleDict)
    }
    return tuple(name for name in names if any(_siblings(name, containers, graded)))


def _siblings(name: str, containers: set[str], graded: set[str]) -> Iterator[str]:
    parts = name.split(".")
    for place in range(1, len(parts) - 1):
        container = ".".join(parts[:place])
        if container in containers:
            before, after = f"{container}.", "." + ".".join(parts[place + 1 :])
            depth = len(parts)
            yield from (
                each
                for each in graded
                if each.startswith(before) and each.endswith(after) and each.count(".") + 1 == depth
            )


def _only_normalization(model: nn.Module, parameters: list[nn.Parameter]) -> bool:
    trainable = [each for each in parameters if each.requires_grad]
    if any(map(is_lazy, parameters)):
        return False
    if not trainable or len(trainable) == len(parameters) or any(each.dim() > 1 for each in trainable):
        return False
    owners = (module for module in model.modules() if "Norm" in type(module).__name__)
    normalizing = {id(each) for owner in owners for each in owner.parameters(recurse=False)}
    frozen = [each for each in parameters if not each.requires_grad]
    return all(id(each) in normalizing for each in trainable) and any(id(each) not in normalizing for each in frozen)
