"""Names of gate checks as attribute values."""

import re
from typing import Final

from nissa.semconv.cardinality import UNKNOWN

_NUMBER: Final = r"[_=:\s]+[-+]?\d"
_LAST: Final = re.compile(rf"(?:{_NUMBER}[\d.,]*(?:e[-+]?\d+)?\s*%?[a-z]*|[_=:\s]+[-+]?(?:nan|inf)%)$", re.IGNORECASE)
_WITHIN: Final = re.compile(rf"{_NUMBER}*(?:[.,]\d+%?|%)")


def check_name(check: str) -> str:
    """Return the name of a gate check without the measured value: ``gain_1.20%`` becomes ``gain``.

    Values in names would create a new metric series at every evaluation.
    """
    return _WITHIN.sub("", _LAST.sub("", check)) or UNKNOWN
