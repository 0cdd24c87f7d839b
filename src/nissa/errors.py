"""Exceptions that Nissa raises on purpose.

::

    NissaError
    ├── ConfigurationError (ValueError)     a setting, file, name or argument that cannot be used
    │   ├── UnknownNameError                a profile, stage, exporter or key that does not exist; names near misses
    │   └── WatchError                      a model and optimizer that cannot be watched together
    ├── InvalidValueError (ValueError)      a value of the training loop that cannot be used (only under ``strict=True``)
    ├── JournalError                        telemetry that could not be written to disk; the pipeline keeps it and tries again
    ├── TransitionError                     a stage change that the table does not allow (only under ``strict=True``)
    └── RunActiveError (RuntimeError)       a second run on a hub that already has one

Internal faults during training are never raised: an error boundary catches, logs once and counts them.
"""

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class NissaError(Exception):
    """Base of every error that Nissa raises on purpose."""


class ConfigurationError(NissaError, ValueError):
    """A setting, file or argument cannot be used; the message states the fix."""


class UnknownNameError(ConfigurationError):
    """A name does not exist; the message lists similar and available names.

    Args:
        kind: Kind of the name, for example ``"profile"``.
        name: The unknown name.
        available: The existing names.
    """

    def __init__(self, kind: str, name: str, available: "Iterable[str]") -> None:
        self.kind = kind
        self.name = name
        self.available = tuple(sorted(available))
        close = near_misses(name, self.available)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        super().__init__(f"Unknown {kind} {name!r}.{hint} Available: {', '.join(self.available)}.")

    def __reduce__(self) -> "tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...]]]":
        """Pickle by the arguments, so that the error survives a process boundary."""
        return type(self), (self.kind, self.name, self.available)


class WatchError(ConfigurationError):
    """A model and an optimizer cannot be watched together."""


class InvalidValueError(NissaError, ValueError):
    """A running training loop passed a value that cannot be used; the message states the fix.

    Raised only under ``strict=True``, the default under pytest. Otherwise the value is absent, which is logged once per call
    and counted.
    """


class JournalError(NissaError):
    """Telemetry could not be written to disk; the message states the cause and the fix.

    Nothing of the failed write remains in the file, so that the caller can try again.
    """


class TransitionError(NissaError):
    """A stage change of a seed is not allowed by the state table."""


class RunActiveError(NissaError, RuntimeError):
    """The hub already has an active run."""


def near_misses(name: str, available: "Iterable[str]", *, most: int = 3) -> list[str]:
    """Return up to ``most`` available names that are similar to ``name``, best first."""
    folded = {candidate.lower(): candidate for candidate in available}
    return [folded[match] for match in get_close_matches(name.lower(), folded, n=most, cutoff=0.6)]
