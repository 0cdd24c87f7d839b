"""Source of each value of a configuration: default, profile, file, environment variable or argument."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nissa.config.building import build, settle
from nissa.config.loading import collect
from nissa.config.models import TelemetryConfig
from nissa.config.schema_docs import describe, variable

if TYPE_CHECKING:
    from nissa.config.merging import SettingsLayer

DEFAULT: Final = "default"
"""Source of a value that is set nowhere."""

ARGUMENT: Final = "argument"
"""Source of a value that is set in code or on a command line."""


@dataclass(frozen=True, slots=True)
class Effective:
    """Effective value of a setting.

    Args:
        path: Dotted path.
        value: Effective value.
        source: ``default``, ``profile 'standard'``, the path of a file, a variable's name or ``argument``.
    """

    path: str
    value: object
    source: str


def effective(
    profile: str | None = None,
    config: "str | os.PathLike[str] | None" = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Effective, ...]:
    """Return every setting of the configuration that `load` would return, with the source of its value.

    Raises:
        ConfigurationError: As `load` does.
    """
    environ = os.environ if environ is None else environ
    layers = collect(profile, config, overrides, environ)
    loaded = build(TelemetryConfig, *layers)
    layers = settle(*layers)
    return tuple(_effective(loaded, layers, environ))


def at(config: object, path: str) -> object:
    """Return the value at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _effective(
    config: TelemetryConfig, layers: "Sequence[SettingsLayer]", environ: Mapping[str, str]
) -> Iterator[Effective]:
    *lower, given_in_environment, overrides = layers
    for setting in describe(TelemetryConfig):
        if _gives(overrides.values, setting.path):
            source = ARGUMENT
        elif _gives(given_in_environment.values, setting.path):
            source = _variable(setting.path, environ)
        else:
            source = next((each.source for each in reversed(lower) if _gives(each.values, setting.path)), DEFAULT)
        yield Effective(setting.path, at(config, setting.path), source)


def _gives(values: Mapping[str, Any], path: str) -> bool:
    node: object = values
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _variable(path: str, environ: Mapping[str, str]) -> str:
    """Return the variable that set a path: its own, else that of an enclosing section."""
    own = variable(path)
    while not environ.get(variable(path)) and "." in path:
        path = path.rpartition(".")[0]
    return variable(path) if environ.get(variable(path)) else own
