"""Settings from environment variables such as ``NISSA_GRADIENTS__EVERY_N_STEPS=10``."""

from importlib import import_module
from typing import TYPE_CHECKING

from nissa.config.merging import SettingsLayer
from nissa.config.models import TelemetryConfig
from nissa.config.schema_docs import describe, variable
from nissa.config.validation_errors import UnknownSettingError, closest
from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "NISSA_"
"""Prefix of Nissa's variables; an unknown variable with this prefix is an error."""

PROFILE_VARIABLE = "NISSA_PROFILE"
"""Variable with the name of the preset."""

CONFIG_VARIABLE = "NISSA_CONFIG"
"""Variable with the path of a YAML file."""

RUN_ID_VARIABLE = "NISSA_RUN_ID"
"""Variable with the run id, shared by the processes of one run. It is not a setting and is read elsewhere."""

RESERVED_VARIABLES = (PROFILE_VARIABLE, CONFIG_VARIABLE, RUN_ID_VARIABLE)
"""Variables with the prefix that are not settings."""


def read_environment(environ: "Mapping[str, str]") -> SettingsLayer:
    """Return the settings in the environment variables; an empty variable counts as not set.

    Lists may be JSON or separated by commas; a whole section may be a JSON object.

    Raises:
        ConfigurationError: A variable with the prefix ``NISSA_`` is unknown, or a section is not a JSON object.
    """
    variables = {name: text for name, text in environ.items() if name.startswith(PREFIX) and text}
    variables = {name: text for name, text in variables.items() if name not in RESERVED_VARIABLES}
    _refuse_unknown(variables)
    # pydantic-settings takes as long to import as all of Nissa's settings, and in most runs there is nothing for it to read.
    values = import_module("nissa.config.settings_source").read(variables, PREFIX) if variables else {}
    return SettingsLayer(f"the environment: {', '.join(sorted(variables))}", values)


def _refuse_unknown(names: "Mapping[str, str]") -> None:
    if not names:
        return
    known = {setting.variable for setting in describe(TelemetryConfig)}
    known.update(RESERVED_VARIABLES, map(variable, TelemetryConfig.model_fields))
    errors = [_unknown(name, known) for name in sorted(names) if name not in known]
    if len(errors) > 1:
        raise ConfigurationError("\n  - ".join(["Some variables cannot be used:", *map(str, errors)]))
    if errors:
        raise errors[0]


def _unknown(name: str, known: "set[str]") -> UnknownSettingError:
    # Compare dotted paths, so that near misses are found as for settings in files.
    paths = {_as_path(candidate): candidate for candidate in sorted(known)}
    close = [paths[path] for path in closest(_as_path(name), paths)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    message = f"The environment variable {name} sets nothing.{hint} Correct or unset it: names that begin with {PREFIX} are ours."
    return UnknownSettingError("environment variable", name, known, message)


def _as_path(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("__", ".")
