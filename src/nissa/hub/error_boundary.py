"""Error boundary: catches internal faults, logs the first per place, counts all, and never raises into training."""

import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from nissa.errors import NissaError
from nissa.hub.critical import CriticalSections

if TYPE_CHECKING:
    from types import TracebackType

_logger = logging.getLogger("nissa")


class ErrorBoundary:
    """Counts faults by the place where they were caught.

    Args:
        sections: Critical sections in which a fault may occur. Such a fault is logged after the section ends, because a
            logging handler is foreign code.

    Attributes:
        faults: Number of faults per place.
        sections: See above.
    """

    def __init__(self, sections: CriticalSections | None = None) -> None:
        self.faults: Counter[str] = Counter()
        self.sections = sections or CriticalSections()
        self._guards: dict[str, Guard] = {}  # a step enters a dozen of them

    def guard(self, where: str) -> "Guard":
        """Return a context manager that catches and counts internal exceptions of the block.

        `NissaError` propagates, because it is raised on purpose and its message is meant for the user.
        KeyboardInterrupt and SystemExit propagate as well.
        """
        found = self._guards.get(where)
        if found is None:
            found = self._guards[where] = Guard(self, where)
        return found

    def fault(self, where: str, error: BaseException) -> None:
        """Count a fault; log the first fault of each place with its traceback."""
        self.faults[where] += 1
        if self.faults[where] > 1:
            return
        if self.sections.inside:
            self.sections.defer(partial(_log, where, error))
        else:
            _log(where, error)


def _log(where: str, error: BaseException) -> None:
    _logger.error(
        "Telemetry failed in %s; training continues. Further errors there are only counted.", where, exc_info=error
    )


class Guard:
    """Context manager of `ErrorBoundary.guard`, without state of its own."""

    __slots__ = ("_error_boundary", "_where")

    def __init__(self, error_boundary: ErrorBoundary, where: str) -> None:
        self._error_boundary = error_boundary
        self._where = where

    def __enter__(self) -> None:
        """Begin the guarded block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> bool:
        """Suppress and count an internal exception; let all others propagate."""
        if error is None or not isinstance(error, Exception) or isinstance(error, NissaError):
            return False
        self._error_boundary.fault(self._where, error)
        return True
