"""Expansion of flat keys to nested settings, and merging of settings layers."""

from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from nissa.errors import ConfigurationError
from nissa.printable import shown

MOST_DEPTH: Final = 20
"""Maximum number of nested mappings and lists of settings."""

MOST_ENTRIES: Final = 10_000
"""Maximum number of entries of settings, where one that several YAML aliases refer to counts several times."""

TOO_NESTED: Final = (
    f"contains itself, is nested more than {MOST_DEPTH} levels deep or has more than {MOST_ENTRIES:,} entries; "
    "write the settings without anchors, as in `gradients: {every_n_steps: 10}`"
)


class NestingError(Exception):
    """Settings are nested too deeply; caught where their source is known."""


def check_nesting(settings: object) -> None:
    """Check that nested settings are finite and small, since a YAML anchor may contain itself or multiply.

    Raises:
        NestingError: They are not.
    """
    entries, level = 0, [settings]
    for _ in range(MOST_DEPTH + 1):
        level = list(islice(chain.from_iterable(map(_inside, level)), MOST_ENTRIES + 1))
        entries += len(level)
        if not level:
            return
        if entries > MOST_ENTRIES:
            break
    raise NestingError


def _inside(node: object) -> Iterable[object]:
    if isinstance(node, Mapping):
        return node.values()
    return node if isinstance(node, list | tuple | set | frozenset) else ()


class SettingsLayer(NamedTuple):
    """Settings from one source."""

    source: str
    """Name for error messages: ``profile 'standard'``, the path of a file, the names of variables, or ``overrides``."""

    values: Mapping[str, Any]
    """Nested settings."""


def merge_layers(layers: Iterable[SettingsLayer]) -> dict[str, Any]:
    """Return the merged settings of all layers; later layers override earlier ones."""
    return reduce(merge, (layer.values for layer in layers), {})


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` recursively overridden by ``top``; inputs are unchanged, and lists are replaced, not joined."""
    return {**base, **{key: _over(base.get(key), value) for key, value in top.items()}}


def _over(below: object, value: object) -> object:
    return merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value


def expand(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Convert flat keys (``gradients__every_n_steps``, ``gradients.every_n_steps``) to nested mappings.

    Raises:
        ConfigurationError: A key is not a string, a setting occurs in two spellings, or the settings contain themselves.
    """
    try:
        check_nesting(overrides)
    except NestingError:
        raise ConfigurationError(f"The mapping of settings {TOO_NESTED}.") from None
    return _expand(overrides)


def _expand(overrides: Mapping[str, Any]) -> dict[str, Any]:
    expanded: dict[str, Any] = {}
    for key, value in overrides.items():
        nested = _expand(value) if isinstance(value, Mapping) else value
        for part in reversed(_parts(key)):
            nested = {part: nested}
        expanded = _join(expanded, nested)
    return expanded


def _parts(key: object) -> list[str]:
    if isinstance(key, str):
        return key.replace("__", ".").split(".")
    hint = " (YAML reads a bare on, off, yes or no as true or false)" if isinstance(key, bool) else ""
    raise ConfigurationError(f"The key {shown(key)} is not text{hint}; use the name of a setting.")


def _join(one: dict[str, Any], two: dict[str, Any], parents: tuple[str, ...] = ()) -> dict[str, Any]:
    """Merge two nested mappings; raise if they share a setting."""
    joined = dict(one)
    for key, value in two.items():
        path = (*parents, key)
        if key not in joined:
            joined[key] = value
        elif isinstance(joined[key], dict) and isinstance(value, dict):
            joined[key] = _join(joined[key], value, path)
        else:
            raise ConfigurationError(f"{'.'.join(path)} is set twice, in two spellings; keep one of them.")
    return joined
