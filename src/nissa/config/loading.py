"""The configuration of a run: preset < YAML file < environment < argument."""

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
"""What a run starts from when nothing names a profile."""


def load(
    profile: str | None = None,
    config: "str | os.PathLike[str] | None" = None,
    overrides: "Mapping[str, Any] | None" = None,
    environ: "Mapping[str, str] | None" = None,
) -> TelemetryConfig:
    """Load the configuration of a run.

    Args:
        profile: The preset; else ``NISSA_PROFILE``, else what the file names, else ``standard``.
        config: A YAML file; else ``NISSA_CONFIG``, else none.
        overrides: Settings that win over all else, nested or with flat keys (see ``expand``).
        environ: The environment variables; those of the process where none are given.

    Raises:
        ConfigurationError: A profile, file, variable or setting cannot be used; the message says what to do.
    """
    return build(TelemetryConfig, *collect(profile, config, overrides, os.environ if environ is None else environ))


def collect(
    profile: str | None,
    config: "str | os.PathLike[str] | None",
    overrides: "Mapping[str, Any] | None",
    environ: "Mapping[str, str]",
) -> tuple[SettingsLayer, ...]:
    """Return what `load` builds from: the preset, then the file where there is one, the environment and the overrides.

    Raises:
        ConfigurationError: A profile, file or variable cannot be used.
    """
    file = _file(config, environ)
    given = [file.layer] if file else []
    return (
        _base(profile, environ, file),
        *given,
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
