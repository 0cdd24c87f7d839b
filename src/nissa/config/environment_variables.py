"""Settings from environment variables such as ``NISSA_GRADIENTS__EVERY_N_STEPS=10``."""

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from nissa.config.merging import SettingsLayer
from nissa.config.models import TelemetryConfig
from nissa.config.schema_docs import describe, variable
from nissa.config.validation_errors import UnknownSettingError, closest
from nissa.errors import ConfigurationError
from nissa.printable import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

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
    _refuse_unknown(variables)
    variables = {name: text for name, text in variables.items() if name not in RESERVED_VARIABLES}
    source = _Source(_Shape, env_prefix=PREFIX, env_nested_delimiter="__")
    source.env_vars = {name.lower(): text for name, text in variables.items()}  # the source looks up lower-case names
    try:
        values = source()
    except SettingsError as error:
        raise ConfigurationError(str(error.__cause__)) from None
    return SettingsLayer(f"the environment: {', '.join(sorted(variables))}", values)


class _Shape(TelemetryConfig, BaseSettings):  # type: ignore[misc]  # both call their configuration `model_config`
    """Field definitions for the settings source. Never instantiated: validation happens once, after merging."""


class _Source(EnvSettingsSource):
    """Settings source that accepts comma-separated lists in addition to JSON."""

    def decode_complex_value(self, field_name: str, field: "FieldInfo", value: Any) -> Any:
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            return _section(field_name, value)
        try:
            decoded = json.loads(value)
        except RecursionError:
            raise ValueError(f"The list {shown(value)} is nested too deeply; give one such as 1,2,3.") from None
        except ValueError:
            decoded = [item.strip() for item in value.split(",")]
        return decoded if isinstance(decoded, list | dict) else [decoded]


def _section(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        whole = variable(name)
        raise ValueError(
            f"{whole} must be a JSON object, not {shown(text)}; to set one of its fields, use {whole}__<FIELD>."
        ) from None


def _refuse_unknown(names: "Mapping[str, str]") -> None:
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
