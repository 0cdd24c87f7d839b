"""Ids of a run and its environments: where they come from, and which are accepted.

The id of a run is the name of the run's folder, so an id from a variable or an argument must not lead out of `files.directory`.
"""

import os
from collections.abc import Mapping
from typing import Final

from nissa.errors import ConfigurationError
from nissa.hub.plain_data import to_name
from nissa.printable import printable, shown

MOST_CHARACTERS: Final = 128
"""Maximum length of a run id; file systems allow names of 255 bytes."""

_ARGUMENT: Final = "run_id"
_RESUMED: Final = "resume"
_VARIABLE: Final = "NISSA_RUN_ID"
_LAUNCHER: Final = "TORCHELASTIC_RUN_ID"
_FIXES: Final = {
    _ARGUMENT: "Pass another run_id, or none.",
    _RESUMED: "Pass what run.state_dict() returned, unchanged.",
    _VARIABLE: f"Correct or unset {_VARIABLE}.",
    _LAUNCHER: f"Pass another --rdzv-id to torchrun, or set {_VARIABLE}, which takes precedence.",
}
_SEPARATORS: Final = frozenset("/\\")


def named_run_id(run_id: str | None, resumed: str | None = None, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the run id that the caller, the resumed run or the environment names, or None.

    Raises:
        ConfigurationError: The id cannot be the name of a folder, or the caller names another run than the one to resume;
            the message contains the fix.
    """
    if run_id and resumed and run_id != resumed:
        raise ConfigurationError(
            f"start(run_id={shown(run_id)}) contradicts resume=, which continues the run {shown(resumed)}; leave "
            "one of them out."
        )
    launcher = environ.get(_LAUNCHER)
    candidates = {
        _ARGUMENT: run_id,
        _RESUMED: resumed,
        _VARIABLE: environ.get(_VARIABLE),
        _LAUNCHER: None if launcher == "none" else launcher,  # torchrun without --rdzv-id
    }
    for source, candidate in candidates.items():
        if candidate:
            return _checked(candidate, source)
    return None


def environment_id(env_id: object) -> str:
    """Return the id of an environment as text of bounded length."""
    return to_name(env_id) or "None"


def _checked(candidate: object, source: str) -> str:
    problem = _problem(candidate)
    if problem is None:
        return str(candidate)
    raise ConfigurationError(
        f"{source} {shown(candidate)} {problem}. A run id is the name of the run's folder: up to {MOST_CHARACTERS} "
        f"characters, such as letters, digits, '-', '_' and '.'. {_FIXES[source]}"
    )


def _problem(candidate: object) -> str | None:
    """Return why a value cannot be a run id; None if it can."""
    if not isinstance(candidate, str):
        return f"is no text, but a {type(candidate).__name__}"
    if not _SEPARATORS.isdisjoint(candidate) or candidate in {".", ".."}:
        return "contains a path"
    if printable(candidate) != candidate:
        return "contains control characters, line breaks or invalid Unicode"
    if candidate != candidate.strip():
        return "begins or ends with a space"
    if len(candidate.encode()) > MOST_CHARACTERS:
        return "is too long"
    return None
