"""Loader for the configuration of a run (precedence: preset < YAML file < environment < argument)."""

import os
from typing import TYPE_CHECKING, Any

from nissa.config.building import build
from nissa.config.environment_variables import CONFIG_VARIABLE, PROFILE_VARIABLE, read_environment
from nissa.config.files import File, preset, read_file
from nissa.config.merging import SettingsLayer, expand
from nissa.config.models import TelemetryConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PROFILE = "standard"
"""Profile of a run if none is named."""


def load(
    profile: str | None = None,
    config: "str | os.PathLike[str] | None" = None,
    overrides: "Mapping[str, Any] | None" = None,
    environ: "Mapping[str, str] | None" = None,
) -> TelemetryConfig:
    """Load the configuration of a run.

    Args:
        profile: Name of the preset. Default: ``NISSA_PROFILE``, else the profile named in the file, else ``standard``.
        config: Path of a YAML file. Default: ``NISSA_CONFIG``, else no file.
        overrides: Settings with the highest precedence, nested or with flat keys (see ``expand``).
        environ: Environment variables; None uses those of the process.

    Raises:
        ConfigurationError: A profile, file, variable or setting is invalid; the message contains the correction.
    """
    return build(TelemetryConfig, *collect(profile, config, overrides, os.environ if environ is None else environ))


def collect(
    profile: str | None,
    config: "str | os.PathLike[str] | None",
    overrides: "Mapping[str, Any] | None",
    environ: "Mapping[str, str]",
) -> tuple[SettingsLayer, ...]:
    """Return the settings layers of `load`, lowest first: preset, file (if any), environment, overrides.

    Raises:
        ConfigurationError: A profile, file or variable is invalid.
    """
    file = _file(config, environ)
    file_layers = [file.layer] if file else []
    return (
        _base(profile, environ, file),
        *file_layers,
        read_environment(environ),
        SettingsLayer("overrides", expand(overrides or {})),
    )


def _file(config: "str | os.PathLike[str] | None", environ: "Mapping[str, str]") -> File | None:
    if config is not None:
        return read_file(config)
    path = environ.get(CONFIG_VARIABLE)
    return read_file(path, named_by=CONFIG_VARIABLE) if path else None


def _base(profile: str | None, environ: "Mapping[str, str]", file: File | None) -> SettingsLayer:
    if profile is not None:
        return preset(profile)
    if named := environ.get(PROFILE_VARIABLE):
        return preset(named, named_by=PROFILE_VARIABLE)
    if file and file.profile is not None:
        return preset(file.profile, named_by=file.layer.source)
    return preset(DEFAULT_PROFILE)
