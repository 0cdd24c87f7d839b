"""Bounds on the distinct values of an attribute: each value creates a series that lasts as long as the run."""

import logging
import re
from typing import Final

UNKNOWN: Final = "unknown"
OTHER: Final = "other"

_NUMBER: Final = r"[_=:\s]+[-+]?\d"
_LAST: Final = re.compile(rf"(?:{_NUMBER}[\d.,]*(?:e[-+]?\d+)?\s*%?[a-z]*|[_=:\s]+[-+]?(?:nan|inf)%)$", re.IGNORECASE)
_WITHIN: Final = re.compile(rf"{_NUMBER}*(?:[.,]\d+%?|%)")

_logger = logging.getLogger("nissa")


def check_name(check: str) -> str:
    """Return the name of a gate check without the measured value: ``gain_1.20%`` becomes ``gain``.

    Values in names would create a new metric series at every evaluation.
    """
    return _WITHIN.sub("", _LAST.sub("", check)) or UNKNOWN


class CardinalityLimiter:
    """Allows the first ``most`` distinct values a series of their own, and logs once when there are more.

    Do not call it with a lock held: logging handlers may run code of the application.

    Args:
        most: Maximum number of distinct values.
        what: Plural noun for the values, for the log.
        setting: Name of the setting that raises the limit, for the log.

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
        """Return the label under which a value is counted: its own, ``unknown`` for None, ``other`` above the limit."""
        own = self.own(value)
        return OTHER if own is None else own

    def own(self, value: object) -> str | None:
        """Return a value's own label, None above the limit. A gauge cannot combine several values in ``other``."""
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
