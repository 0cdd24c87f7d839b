"""Values of settings from environment variables, as pydantic-settings reads them."""

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from nissa.config.models import TelemetryConfig
from nissa.config.schema_docs import variable
from nissa.errors import ConfigurationError
from nissa.printable import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo


def read(variables: "Mapping[str, str]", prefix: str) -> dict[str, Any]:
    """Return the settings in environment variables, as nested data that are not validated.

    Args:
        variables: The variables.
        prefix: Prefix of their names.

    Raises:
        ConfigurationError: A section is not a JSON object.
    """
    source = _Source(_Shape, env_prefix=prefix, env_nested_delimiter="__")
    source.env_vars = {name.lower(): text for name, text in variables.items()}  # the source looks up lower-case names
    try:
        return source()
    except SettingsError as error:
        raise ConfigurationError(str(error.__cause__)) from None


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
