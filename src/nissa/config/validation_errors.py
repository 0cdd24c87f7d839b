"""Validation errors in the words of whoever has to fix them."""

from difflib import SequenceMatcher
from reprlib import repr as short_repr
from typing import TYPE_CHECKING

from nissa.config.schema_docs import describe, section_of
from nissa.errors import ConfigurationError, UnknownNameError, near_misses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    from nissa.config.merging import SettingsLayer

    Location = tuple[int | str, ...]


class UnknownSettingError(UnknownNameError):
    """A key, keyword or variable names no setting; near misses are searched over the full path of every setting."""

    def __init__(self, kind: str, name: str, available: "Iterable[str]", message: str) -> None:
        super().__init__(kind, name, available)
        # The usual hint misses `gradients.layers` for `layers`, and the usual list would run to fifty names.
        self.args = (message,)


def explain(
    error: "ValidationError", model: "type[BaseModel]", layers: "Sequence[SettingsLayer]"
) -> ConfigurationError:
    """Return the error to raise instead: a line for each problem, with its path, what is allowed, and its source."""
    allowed = {setting.path: setting.allowed for setting in describe(model)}
    problems: dict[str, ConfigurationError] = {}
    for details in error.errors():
        if details["type"] != "default_factory_not_called":  # says only that a neighbour's own problem comes first
            path, problem = _message(details, model, allowed, _origin(details["loc"], model, layers))
            # Each branch of a union complains for itself; the first line says it for all of them.
            problems.setdefault(path, problem)
    if len(problems) == 1:
        return next(iter(problems.values()))
    return ConfigurationError("\n  - ".join(["Some settings cannot be used:", *map(str, problems.values())]))


def _message(
    details: "ErrorDetails", model: "type[BaseModel]", allowed: "Mapping[str, str]", origin: str
) -> tuple[str, ConfigurationError]:
    if details["type"] == "extra_forbidden":
        path = ".".join(map(str, details["loc"]))
        return path, _unknown(path, origin, model, [*allowed, *model.model_fields])
    path = _path(details["loc"], model)
    complaint = _complaint(details, path, allowed.get(path.partition("[")[0]))
    return path, ConfigurationError(f"{path} {complaint}{origin}.")


def _unknown(path: str, origin: str, model: "type[BaseModel]", paths: "Iterable[str]") -> UnknownSettingError:
    parents, _, _ = path.rpartition(".")
    siblings = [f"{parents}.{name}" for name in _names_in(parents, model)] or list(model.model_fields)
    close = closest(path, paths)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    message = f"Unknown setting {path!r}{origin}.{hint} Available here: {', '.join(siblings)}."
    return UnknownSettingError("setting", path, [*siblings, *close], message)


def closest(path: str, paths: "Iterable[str]") -> list[str]:
    """Return up to three paths that may have been meant: those that end alike, the most similar first.

    Whole paths are only ranked: a shared section would make all that is in it look similar.
    """
    leaves: dict[str, list[str]] = {}
    for known in dict.fromkeys(paths):
        leaves.setdefault(known.rpartition(".")[2], []).append(known)
    leaf = path.rpartition(".")[2].lower()
    alike = [leaf] if leaf in leaves else near_misses(leaf, leaves)
    meant = [known for name in alike for known in leaves[name]]
    return sorted(meant, key=lambda known: SequenceMatcher(None, path.lower(), known).ratio(), reverse=True)[:3]


def _names_in(parents: str, model: "type[BaseModel]") -> "Iterable[str]":
    section: type[BaseModel] | None = model
    for name in parents.split("."):
        section = section_of(section, name) if section else None
    return section.model_fields if section else ()


def _depth(location: "Location", model: "type[BaseModel]") -> int:
    """Return how many parts of a location name a setting; what follows is within its value."""
    section = section_of(model, str(location[0]))
    return 1 + (_depth(location[1:], section) if section and len(location) > 1 else 0)


def _path(location: "Location", model: "type[BaseModel]") -> str:
    """Spell a location without the names that pydantic gives to the branches of a union."""
    depth = _depth(location, model)
    index = location[depth] if len(location) > depth else None
    return ".".join(map(str, location[:depth])) + (f"[{index}]" if isinstance(index, int) else "")


def _complaint(details: "ErrorDetails", path: str, allowed: str | None) -> str:
    if details["type"] == "value_error":
        return f"cannot be used: {details['ctx']['error']}"
    given = short_repr(details["input"])
    if allowed is None:
        return f"must be a mapping of settings, as in `{path}: {{...}}`, not {given}"
    if "[" in path:
        allowed = allowed.partition("each item ")[2]
    return f"must be {allowed}, not {given}"


def _origin(location: "Location", model: "type[BaseModel]", layers: "Sequence[SettingsLayer]") -> str:
    """Name the highest layer that gave the value."""
    for layer in reversed(layers):
        if _gives(layer.values, location[: _depth(location, model)]):
            return f" (from {layer.source})"
    return ""


def _gives(values: "Mapping[str, object]", location: "Location") -> bool:
    node: object = values
    for part in location:
        if not isinstance(node, dict):
            return True  # the whole section came as something else
        if part not in node:
            return False
        node = node[part]
    return True
