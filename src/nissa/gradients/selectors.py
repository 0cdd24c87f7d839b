"""Matching of parameters against the selectors of ``gradients.layers``."""

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.parametrize import ParametrizationList

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nissa.config.layer_selectors import LayerSelector

_HIDDEN = ".parametrizations."


def owner_types(model: torch.nn.Module) -> dict[int, type[torch.nn.Module]]:
    """Return the type of the module that owns each parameter, by parameter id.

    A tied parameter belongs to the first module that contains it, which also names it. A tensor that torch moved into a
    ``ParametrizationList`` still belongs to the parametrized module.
    """
    modules = dict(model.named_modules())
    found: dict[int, type[torch.nn.Module]] = {}
    for path, module in modules.items():
        owner = modules[_parametrized(path)] if isinstance(module, ParametrizationList) else module
        for parameter in module.parameters(recurse=False):
            found.setdefault(id(parameter), type(owner))
    return found


def _parametrized(path: str) -> str:
    return f".{path}".rpartition(_HIDDEN)[0].removeprefix(".")


def matches(selector: "LayerSelector", name: str, owner: type | None) -> bool:
    """Whether a selector matches a parameter, ignoring its ``!``.

    Args:
        selector: The selector.
        name: The parameter's name.
        owner: Type of the module that owns it; None if the model does not contain it.
    """
    if selector.type_name is None:
        return selector.pattern is not None and selector.pattern.fullmatch(name) is not None
    return owner is not None and _is_a(owner, selector.type_name)


def type_names(owners: "Iterable[type | None]") -> list[str]:
    """Return the class names that match at least one owner: names of the owners, then names of their bases."""
    known = dict.fromkeys(owner for owner in owners if owner is not None)
    own = [owner.__name__ for owner in known]
    bases = [base.__name__ for owner in known for base in owner.__mro__[1:] if base not in _EVERY]
    return list(dict.fromkeys([*own, *bases]))


_EVERY = (*torch.nn.Module.__mro__,)
"""Bases of every module; useless as selectors, because they match all parameters."""


def _is_a(owner: type, name: str) -> bool:
    """Whether a class or one of its bases has this name: class name, qualified name, or any importable path."""
    named = _named(name)
    return any(
        base is named or name in (base.__name__, base.__qualname__, f"{base.__module__}.{base.__qualname__}")
        for base in owner.__mro__
    )


def _named(path: str) -> Any:
    """Return the object at a dotted path in the loaded modules, or None.

    Comparing names is not enough: ``torch.nn.Linear`` is defined in ``torch.nn.modules.linear``.
    """
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:length]))
        if found is not None:
            for part in parts[length:]:
                found = getattr(found, part, None)
            return found
    return None
