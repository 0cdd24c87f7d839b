"""The one place where a fault of ours is caught: logged once per place, counted, never raised into training."""

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
        sections: Critical sections in which a fault may occur; it is logged after they are left, because a logging
            handler is foreign code.

    Attributes:
        faults: How often each place failed.
        sections: See above.
    """

    def __init__(self, sections: CriticalSections | None = None) -> None:
        self.faults: Counter[str] = Counter()
        self.sections = sections or CriticalSections()

    def guard(self, where: str) -> "Guard":
        """Return a context manager that keeps an exception of ours from leaving the block.

        `NissaError` passes, because it is raised on purpose and says what to do; so do KeyboardInterrupt and SystemExit.
        """
        return Guard(self, where)

    def fault(self, where: str, error: BaseException) -> None:
        """Count a fault, and log the first of its place with the traceback."""
        self.faults[where] += 1
        if self.faults[where] > 1:
            return
        if self.sections.inside:
            self.sections.defer(partial(_log, where, error))
        else:
            _log(where, error)


def _log(where: str, error: BaseException) -> None:
    _logger.error(
        "Telemetry failed in %s; training goes on. Further faults there are only counted.", where, exc_info=error
    )


class Guard:
    """See `ErrorBoundary.guard`."""

    __slots__ = ("_error_boundary", "_where")

    def __init__(self, error_boundary: ErrorBoundary, where: str) -> None:
        self._error_boundary = error_boundary
        self._where = where

    def __enter__(self) -> None:
        """Begin the guarded block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> bool:
        """Swallow and count what is ours to swallow."""
        if error is None or not isinstance(error, Exception) or isinstance(error, NissaError):
            return False
        self._error_boundary.fault(self._where, error)
        return True
