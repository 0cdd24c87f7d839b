"""Selection and naming of the parameters whose gradients are measured."""

import logging
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

import torch
from torch.nn.parameter import is_lazy

from nissa.config.layer_selectors import ALL, LayerSelector, parse_selector
from nissa.errors import near_misses
from nissa.gradients.selectors import matches, owner_types, type_names
from nissa.printable import printable_name
from nissa.torch_compat import ModuleTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_logger = logging.getLogger("nissa")

_WRAPPERS: Final = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "module", "_module"}
)
"""Names that wrappers of torch, Lightning Fabric and Opacus insert into parameter paths, not the network itself."""
_LEADING: Final = frozenset({"module", "_module"})
"""Those that are removed from the beginning of a path only: further down they may belong to the network."""

_MEASURABLE: Final = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128}
)

_MOST_PATH: Final = 1_024
"""Maximum length of a parameter's name, which is the path of its module."""

UNNAMED: Final = "optimizer.group"
"""Beginning of the name of a parameter that is in the optimizer and not in the model."""

_REMEMBERED: Final = 2**17
"""Size of the name caches; bounded because the names of growing networks change."""


@lru_cache(maxsize=_REMEMBERED)
def clean_name(name: str) -> str:
    """Return a parameter path without the parts inserted by wrappers (compile, DDP, checkpointing)."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return _safe(".".join(part for part in parts if part not in _WRAPPERS or part in _LEADING) or name)


def _safe(path: str) -> str:
    return printable_name(path, _MOST_PATH)


def names_of(model: "torch.nn.Module") -> "list[tuple[str, torch.nn.Parameter]]":
    """Return each parameter once with its name; the name is cleaned if the result is unique."""
    parameters = list(model.named_parameters())
    cleaned = [clean_name(name) for name, _ in parameters]
    if len(set(cleaned)) == len(cleaned):
        return [(short, parameter) for short, (_, parameter) in zip(cleaned, parameters, strict=True)]
    owners = Counter(cleaned)
    return [
        (short if owners[short] == 1 else _safe(name), parameter)
        for short, (name, parameter) in zip(cleaned, parameters, strict=True)
    ]


def unmeasurable(parameter: "torch.Tensor") -> str | None:
    """Return the reason why a parameter of an optimizer cannot be measured, or None.

    Such parameters are left out one by one: a single integer tensor must not cost the statistics of all others.
    """
    if is_lazy(parameter):
        return "not initialised"
    if parameter.dtype not in _MEASURABLE:
        return str(parameter.dtype).removeprefix("torch.")
    if parameter.layout is not torch.strided:
        return str(parameter.layout).removeprefix("torch.")
    gradient = parameter.grad
    if gradient is not None and gradient.dtype not in _MEASURABLE:
        return f"gradient of {str(gradient.dtype).removeprefix('torch.')}"
    return None


class HasParameters(Protocol):
    """An optimizer, or several of them as one."""

    @property
    def param_groups(self) -> "list[dict[str, Any]]":
        """Parameter groups."""


class MeasurableParameters:
    """Filter of the parameters for which there are statistics; logs the names of the others once."""

    def __init__(self) -> None:
        self._left_out: set[str] = set()
        # Parameters of the last call, if all of them could be measured: checking each again costs more than the rest of
        # the preparation of a sample.
        self._known: list[int] = []

    def __call__(self, chosen: "list[tuple[str, torch.nn.Parameter]]") -> "list[tuple[str, torch.nn.Parameter]]":
        """Return the name and tensor of each parameter that can be measured."""
        ids = [id(parameter) for _, parameter in chosen]
        if ids == self._known:
            return chosen
        reasons = {name: reason for name, parameter in chosen if (reason := unmeasurable(parameter)) is not None}
        if not reasons:
            self._known = ids
            return chosen
        if news := {name: reason for name, reason in reasons.items() if name not in self._left_out}:
            self._left_out |= set(news)
            _logger.warning(
                "Not measured, because Nissa has no statistics for them: %s. All other parameters are measured.",
                ", ".join(f"{name} ({reason})" for name, reason in news.items()),
            )
        return [pair for pair in chosen if pair[0] not in reasons]


@dataclass(frozen=True, slots=True)
class _KnownNames:
    """Selected parameters of an optimizer, valid while neither it nor the model changes; it keeps no parameter alive.

    Args:
        tree: Modules of the model.
        held: Id of each parameter of the optimizer.
        sizes: Number of parameters of each of its groups.
        names: Name and index in ``held`` of each selected parameter.
    """

    tree: ModuleTree
    held: list[int]
    sizes: list[int]
    names: list[tuple[str, int]]

    def of(self, held: "Sequence[torch.nn.Parameter]", sizes: list[int]) -> bool:
        """Whether an optimizer holds these parameters in groups of these sizes, and the model is unchanged."""
        return self.held == [*map(id, held)] and self.sizes == sizes and self.tree.unchanged


class Selection:
    """Parameters of a model that the configuration selects, with their names.

    A parameter is selected if a selector matches it and no negated selector does. If all selectors are negated, it is
    selected if none matches.

    Args:
        layers: Selectors in the syntax of `nissa.config.layer_selectors`, or ``"all"``.

    Raises:
        ValueError: A selector is invalid.
    """

    def __init__(self, layers: "Sequence[str] | str") -> None:
        selectors = () if layers == ALL else tuple(map(parse_selector, [layers] if isinstance(layers, str) else layers))
        self._selectors = selectors
        self._wanted = tuple(each for each in selectors if not each.negated)
        self._unwanted = tuple(each for each in selectors if each.negated)
        self._by_type = any(each.type_name is not None for each in selectors)
        self._known: WeakKeyDictionary[torch.nn.Module, _KnownNames] = WeakKeyDictionary()
        # Cache per name and type: the result depends on nothing else, and matching is too slow for every step.
        self._decided = lru_cache(maxsize=_REMEMBERED)(self._decide)

    def chosen(self, name: str, owner: type | None = None) -> bool:
        """Whether a parameter is selected.

        Args:
            name: The parameter's name.
            owner: Type of the module that owns it; None if the model does not contain it.
        """
        return not self._selectors or self._decided(name, owner)

    def _decide(self, name: str, owner: type | None) -> bool:
        wanted = not self._wanted or any(matches(each, name, owner) for each in self._wanted)
        return wanted and not any(matches(each, name, owner) for each in self._unwanted)

    def names(self, model: "torch.nn.Module", optimizer: HasParameters) -> "list[tuple[str, torch.nn.Parameter]]":
        """Return name and tensor of the selected parameters of the optimizer, once each, in the order of its groups.

        Parameters may have been added, removed or replaced since the last call: the network is walked again unless every
        module still has the same members.
        """
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        known = self._known.get(model)
        if known is not None and known.of(held, sizes):
            return [(name, held[place]) for name, place in known.names]
        tree = ModuleTree(model)
        found = [
            (name, parameter) for name, parameter, owner in self._all(model, optimizer) if self.chosen(name, owner)
        ]
        places = {id(parameter): place for place, parameter in enumerate(held)}
        names = [(name, places[id(parameter)]) for name, parameter in found]
        self._known[model] = _KnownNames(tree, [*map(id, held)], sizes, names)
        return found

    def _all(
        self, model: "torch.nn.Module", optimizer: HasParameters
    ) -> "Iterator[tuple[str, torch.nn.Parameter, type | None]]":
        names = {id(parameter): name for name, parameter in names_of(model)}
        owners = owner_types(model) if self._by_type else {}
        seen: set[int] = set()
        for number, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                key = id(parameter)
                if key not in seen:
                    seen.add(key)
                    yield names.get(key) or f"{UNNAMED}{number}.{index}", parameter, owners.get(key)

    def warn_unmatched(self, model: "torch.nn.Module", optimizer: HasParameters) -> list[str]:
        """Log each selector that matches no parameter yet, with near misses, and return those selectors.

        A combination of selectors that leaves no parameter is logged too.
        """
        known = [(name, owner) for name, _, owner in self._all(model, optimizer)]
        unmatched = [each for each in self._selectors if not any(matches(each, *pair) for pair in known)]
        for selector in unmatched:
            _warn(selector, known)
        if known and not unmatched and not any(self.chosen(*pair) for pair in known):
            _logger.warning(
                "gradients.layers: %s leave none of the model's %d parameters; drop one that begins with '!'.",
                ", ".join(repr(each.text) for each in self._selectors),
                len(known),
            )
        return [each.text for each in unmatched]


def _warn(selector: LayerSelector, known: "Sequence[tuple[str, type | None]]") -> None:
    by_type = selector.type_name is not None
    known_names = type_names(owner for _, owner in known) if by_type else [name for name, _ in known]
    # Compare the part that a typo most likely affects: the class name of a dotted path, the text inside a glob.
    sought = selector.what.rpartition(".")[2] if by_type else selector.what.strip("*.")
    close = near_misses(sought, known_names) or known_names[:3]
    _logger.warning(
        "gradients.layers: %r matches none of the model's %d parameters so far; parameters are for example: %s.",
        selector.text,
        len(known),
        ", ".join(f"type:{each}" if by_type else each for each in close) or "none",
    )
