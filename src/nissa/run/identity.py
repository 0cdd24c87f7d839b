"""Ids of a run and its environments: where they come from, and which are accepted.

The id of a run is the name of the run's folder, so an id from a variable or an argument must not lead out of `files.directory`.
"""

import os
import secrets
from collections.abc import Mapping
from time import strftime
from typing import Final

from nissa.distributed.rank import common_run_id
from nissa.errors import ConfigurationError
from nissa.hub.plain_data import to_name
from nissa.printable import printable, shown

MOST_CHARACTERS: Final = 128
"""Maximum length of a run id; file systems allow names of 255 bytes."""

_ARGUMENT: Final = "run_id"
_VARIABLE: Final = "NISSA_RUN_ID"
_LAUNCHER: Final = "TORCHELASTIC_RUN_ID"
_FIXES: Final = {
    _ARGUMENT: "Pass another run_id, or none.",
    _VARIABLE: f"Correct or unset {_VARIABLE}.",
    _LAUNCHER: f"Pass another --rdzv-id to torchrun, or set {_VARIABLE}, which takes precedence.",
}
_SEPARATORS: Final = frozenset("/\\")


def run_identity(run_id: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the id of a run: the argument, else that of a variable, else one that its ranks agree on.

    Raises:
        ConfigurationError: The id cannot be the name of a folder; the message contains the fix.
    """
    launcher = environ.get(_LAUNCHER)
    candidates = {
        _ARGUMENT: run_id,
        _VARIABLE: environ.get(_VARIABLE),
        _LAUNCHER: None if launcher == "none" else launcher,  # torchrun without --rdzv-id
    }
    for source, candidate in candidates.items():
        if candidate:
            return _checked(candidate, source)
    return common_run_id(f"{strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}")


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
