"""Attribute values of metrics, kept few: each different one is a series for as long as the run lives."""

import re
from typing import Final

UNKNOWN: Final = "unknown"
OTHER: Final = "other"

_NUMBER: Final = r"[_=:\s]+[-+]?\d"
_LAST: Final = re.compile(rf"(?:{_NUMBER}[\d.,]*(?:e[-+]?\d+)?\s*%?[a-z]*|[_=:\s]+[-+]?(?:nan|inf)%)$", re.IGNORECASE)
_WITHIN: Final = re.compile(rf"{_NUMBER}*(?:[.,]\d+%?|%)")


class Labels:
    """Gives the first so many different values a label of their own, and calls all others ``other``.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, value: object) -> str:
        """Return the label of a value; ``unknown`` where there is none."""
        label = UNKNOWN if value is None else str(value) or UNKNOWN
        if label in self._known or label == UNKNOWN:
            return label
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(label)
        return label


def check_name(check: str) -> str:
    """Return a gate check's name without the value it was made on: ``gain_1.20%`` is ``gain``.

    Values in names would give every evaluation a series of its own.
    """
    return _WITHIN.sub("", _LAST.sub("", check)) or UNKNOWN
