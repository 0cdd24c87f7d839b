"""Conversion of pydantic validation errors to messages with path, allowed values and source of each problem."""

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from nissa.config.schema_docs import describe, section_of
from nissa.errors import ConfigurationError, UnknownNameError, near_misses
from nissa.printable import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    from nissa.config.merging import SettingsLayer

    Location = tuple[int | str, ...]


class UnknownSettingError(UnknownNameError):
    """Unknown key, keyword or variable; near misses are searched over the full paths of all settings."""

    def __init__(self, kind: str, name: str, available: "Iterable[str]", message: str) -> None:
        super().__init__(kind, name, available)
        # The base class would not suggest `gradients.layers` for `layers`, and would list all of about fifty names.
        self.args = (message,)


def explain(
    error: "ValidationError", model: "type[BaseModel]", layers: "Sequence[SettingsLayer]"
) -> ConfigurationError:
    """Return the error to raise instead: one line per problem, with its path, allowed values and source layer."""
    allowed = {setting.path: setting.allowed for setting in describe(model)}
    problems: dict[str, ConfigurationError] = {}
    for details in error.errors():
        if (
            details["type"] != "default_factory_not_called"
        ):  # a consequence of another invalid field, which has its own error
            path, problem = _message(details, model, allowed, _origin(details["loc"], model, layers))
            # Pydantic reports an error per branch of a union; one line per path is enough.
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
    """Return up to three near misses: paths with a similar last part, the most similar first.

    Whole paths are compared only for the ranking, because all settings of a section share its prefix.
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
    """Return the number of parts of a location that name a setting; later parts are inside its value."""
    section = section_of(model, str(location[0]))
    return 1 + (_depth(location[1:], section) if section and len(location) > 1 else 0)


def _path(location: "Location", model: "type[BaseModel]") -> str:
    """Return a location as a dotted path, without pydantic's names for the branches of a union."""
    depth = _depth(location, model)
    index = location[depth] if len(location) > depth else None
    return ".".join(map(str, location[:depth])) + (f"[{index}]" if isinstance(index, int) else "")


def _complaint(details: "ErrorDetails", path: str, allowed: str | None) -> str:
    if details["type"] == "value_error":
        return f"cannot be used: {details['ctx']['error']}"
    actual = shown(details["input"])
    if allowed is None:
        return f"must be a mapping of settings, as in `{path}: {{...}}`, not {actual}"
    if "[" in path:
        allowed = allowed.partition("each item ")[2]
    return f"must be {allowed}, not {actual}"


def _origin(location: "Location", model: "type[BaseModel]", layers: "Sequence[SettingsLayer]") -> str:
    """Return the source of the highest layer that sets the value, for the error message."""
    for layer in reversed(layers):
        if _sets(layer.values, location[: _depth(location, model)]):
            return f" (from {layer.source})"
    return ""


def _sets(values: "Mapping[str, object]", location: "Location") -> bool:
    node: object = values
    for part in location:
        if not isinstance(node, dict):
            return True  # the layer sets the whole section to another type
        if part not in node:
            return False
        node = node[part]
    return True
