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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

PREFIX = "NISSA_"
"""What our variables begin with; one that begins so and is not known is an error."""

PROFILE_VARIABLE = "NISSA_PROFILE"
"""Names the preset to start from."""

CONFIG_VARIABLE = "NISSA_CONFIG"
"""Names a YAML file."""

RUN_ID_VARIABLE = "NISSA_RUN_ID"
"""Names the run, so that the processes of one run agree; no setting, and not read here."""

RESERVED_VARIABLES = (PROFILE_VARIABLE, CONFIG_VARIABLE, RUN_ID_VARIABLE)
"""Variables of ours that are no settings."""


def read_environment(environ: "Mapping[str, str]") -> SettingsLayer:
    """Return the settings that the environment gives; an empty variable counts as not set.

    Lists may be JSON or separated by commas; a whole section may be a JSON object.

    Raises:
        ConfigurationError: A variable that begins with ``NISSA_`` names no setting, or a section is no JSON object.
    """
    given = {name: text for name, text in environ.items() if name.startswith(PREFIX) and text}
    _refuse_unknown(given)
    given = {name: text for name, text in given.items() if name not in RESERVED_VARIABLES}
    source = _Source(_Shape, env_prefix=PREFIX, env_nested_delimiter="__")
    source.env_vars = {name.lower(): text for name, text in given.items()}  # it looks names up in lower case
    try:
        values = source()
    except SettingsError as error:
        raise ConfigurationError(str(error.__cause__)) from None
    return SettingsLayer(f"the environment: {', '.join(sorted(given))}", values)


class _Shape(TelemetryConfig, BaseSettings):  # type: ignore[misc]  # both call their configuration `model_config`
    """The fields to look for; never instantiated, so that validation happens once, over all layers."""


class _Source(EnvSettingsSource):
    """Reads comma lists besides JSON."""

    def decode_complex_value(self, field_name: str, field: "FieldInfo", value: Any) -> Any:
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            return _section(field_name, value)
        try:
            decoded = json.loads(value)
        except ValueError:
            decoded = [item.strip() for item in value.split(",")]
        return decoded if isinstance(decoded, list | dict) else [decoded]


def _section(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        whole = variable(name)
        raise ValueError(
            f"{whole} must be a JSON object, not {text!r}; to set one of its fields, use {whole}__<FIELD>."
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
    # Variables are paths in another spelling, so they are compared as paths.
    paths = {_as_path(candidate): candidate for candidate in sorted(known)}
    close = [paths[path] for path in closest(_as_path(name), paths)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    message = f"The environment variable {name} sets nothing.{hint} Correct or unset it: names that begin with {PREFIX} are ours."
    return UnknownSettingError("environment variable", name, known, message)


def _as_path(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("__", ".")
