"""Readers for presets and YAML configuration files."""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from nissa.config.merging import TOO_NESTED, NestingError, SettingsLayer, check_nesting, expand
from nissa.errors import ConfigurationError, UnknownNameError
from nissa.printable import printable, shown

if TYPE_CHECKING:
    from collections.abc import Hashable
    from os import PathLike

PROFILES = ("minimal", "standard", "diagnostic", "research")
"""Names of the presets, in order of increasing detail."""

CUSTOM = "custom"
"""Name of the base without a preset: the defaults of the models."""

MOST_REASON = 300
"""Maximum length of a parser's message, which may quote the file."""

_EXAMPLE = "write a mapping such as `profile: standard`"


class File(NamedTuple):
    """Content of a YAML file."""

    profile: str | None
    """Profile named in the file, None if it names none."""

    layer: SettingsLayer
    """Settings of the file."""


def preset(name: str, *, named_by: str = "") -> SettingsLayer:
    """Return the settings of a preset; those of ``custom`` are empty.

    Args:
        name: Name of the profile.
        named_by: Source of the name, for the error message.

    Raises:
        UnknownNameError: The profile does not exist.
    """
    if name == CUSTOM:
        return SettingsLayer(f"profile {name!r}", {})
    if name not in PROFILES:
        raise UnknownNameError(f"profile (from {named_by})" if named_by else "profile", name, (*PROFILES, CUSTOM))
    text = (resources.files(__package__) / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return SettingsLayer(f"profile {name!r}", parse(text, f"preset {name!r}"))


def read_file(path: "str | PathLike[str]", *, named_by: str = "") -> File:
    """Read a YAML file.

    Args:
        path: Path of the file.
        named_by: Variable that holds the path, for the error message.

    Raises:
        ConfigurationError: The file cannot be read, or its content is not a mapping.
    """
    source = f"{path} (from {named_by})" if named_by else str(path)
    settings = parse(_read(Path(path), source), source)
    return File(_pop_base(settings, source), SettingsLayer(source, settings))


def parse(text: str, source: str) -> dict[str, Any]:
    """Return the nested settings in a YAML text.

    Raises:
        ConfigurationError: The text is not YAML, or its content is not a mapping.
    """
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506  # derived from the safe loader
        check_nesting(content)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-01
        raise ConfigurationError(f"{source} is not valid YAML: {_locate(error)}") from None
    except (NestingError, RecursionError):
        raise ConfigurationError(f"{source} {TOO_NESTED}.") from None
    if content is None:
        raise ConfigurationError(f"{source} is empty; {_EXAMPLE}, or leave the file out.")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"only the value {shown(content)}"
        raise ConfigurationError(f"{source} contains {kind}; {_EXAMPLE}.")
    try:
        return expand(content)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        problem = f"does not exist (looked for {path.absolute()}); correct the path, or leave it out to use a profile"
    except IsADirectoryError:
        problem = "is a directory; give the path of a YAML file"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check the path and its permissions"
    except ValueError as error:
        problem = f"cannot be read ({error}); correct the path"
    raise ConfigurationError(f"The configuration file {source} {problem}.")


def _pop_base(settings: dict[str, Any], source: str) -> str | None:
    """Remove the key that names the base profile and return its value.

    A ``profile_name`` beside a ``profile`` is a label and stays.
    """
    if "profile" in settings:
        profile = settings.pop("profile")
        if not isinstance(profile, str):
            raise ConfigurationError(f"{source}: profile must be one of {', '.join(PROFILES)}, not {shown(profile)}.")
        return profile
    label = settings.get("profile_name")
    if label in (*PROFILES, CUSTOM):
        return str(settings.pop("profile_name"))
    if isinstance(label, str):
        raise UnknownNameError(
            f"profile (from profile_name in {source}; as a label of your own, put `profile: {CUSTOM}` beside it)",
            label,
            (*PROFILES, CUSTOM),
        )
    return None


def _locate(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return printable(str(error), MOST_REASON)
    problem = printable(str(getattr(error, "problem", None) or "it ends too early"), MOST_REASON)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}. Check the indentation and quotes there."


class _Loader(yaml.SafeLoader):
    """Safe loader that raises for duplicate keys; PyYAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> "dict[Hashable, Any]":
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for index, key in enumerate(keys):
            if key.value in (earlier.value for earlier in keys[:index]):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice in one mapping", key.start_mark
                )
        return super().construct_mapping(node, deep=deep)
