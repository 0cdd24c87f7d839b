"""Bound on the number of different values of an attribute: each is a series for as long as the run lives."""

import logging
from typing import Final

UNKNOWN: Final = "unknown"
OTHER: Final = "other"

_logger = logging.getLogger("nissa")


class CardinalityLimiter:
    """Lets the first so many different values have a series of their own, and logs once that there are more.

    Not to be called while a lock is held, since logging calls foreign code.

    Args:
        most: How many.
        what: What is limited, in the plural, for the log.
        setting: The setting to raise, for the log.

    Example:
        With ``most=1``, ``label`` returns ``"a"`` for ``"a"`` and ``"other"`` for ``"b"``, ``own`` returns None for it.
    """

    def __init__(self, most: int, what: str, setting: str) -> None:
        self._most = most
        self._what = what
        self._setting = setting
        self._known: set[str] = set()
        self._full = False

    def label(self, value: object) -> str:
        """Return the label under which a value is counted: its own, ``unknown`` where there is none, or ``other``."""
        own = self.own(value)
        return OTHER if own is None else own

    def own(self, value: object) -> str | None:
        """Return a value's own label, None beyond the bound: a gauge of several things at once says nothing."""
        label = UNKNOWN if value is None else str(value) or UNKNOWN
        if label in self._known or label == UNKNOWN:
            return label
        if len(self._known) < self._most:
            self._known.add(label)
            return label
        self._warn()
        return None

    def _warn(self) -> None:
        if not self._full:
            self._full = True
            _logger.warning(
                "More than %d %s: further ones are counted as %r and have no gauges; raise %s to export them.",
                self._most,
                self._what,
                OTHER,
                self._setting,
            )
