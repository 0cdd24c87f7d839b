"""Decode OTLP JSON values; 64-bit integers, NaN and infinities are encoded as strings.

Files may come from any program or be damaged. What OTLP does not allow raises `ValueError` or `TypeError`, and text is
escaped, so that the rest of the code can rely on what it reads.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from nissa.printable import printable, printable_name

_MOST_INTEGER: Final = 2**63
"""Limit of OTLP integers, and of times that can be calculated with: nanoseconds until the year 2262."""


def plain(value: Mapping[str, Any]) -> Any:
    """Decode an attribute value; return None if it is empty or of an unknown kind."""
    for kind, content in value.items():
        if kind in _KINDS:
            return _KINDS[kind](content)
    return None


def attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the attributes of a resource, span, log record or data point."""
    return {name(each["key"]): plain(each.get("value", {})) for each in holder.get("attributes", ())}


def number(point: Mapping[str, Any]) -> float | None:
    """Decode the value of a gauge or sum point; return None if it has none."""
    if "asDouble" in point:
        return real(point["asDouble"])
    return float(whole(point["asInt"], -_MOST_INTEGER)) if "asInt" in point else None


def nanoseconds(holder: Mapping[str, Any], field: str) -> int:
    """Decode a time; return 0 if the field is missing."""
    return whole(holder.get(field, 0))


def count(holder: Mapping[str, Any], field: str) -> int:
    """Decode a number of elements; return 0 if the field is missing."""
    return whole(holder.get(field, 0))


def whole(content: Any, least: int = 0, most: int = _MOST_INTEGER - 1) -> int:
    """Decode an integer.

    Raises:
        TypeError: It is neither a number nor text.
        ValueError: It is not a whole number from ``least`` to ``most``.
    """
    if isinstance(content, bool) or not isinstance(content, int | float | str):
        raise TypeError(f"{type(content).__name__} is not an integer")
    try:
        found = int(content)
    except OverflowError:  # Infinity
        raise ValueError("infinity is not an integer") from None
    if not least <= found <= most:
        raise ValueError("the integer is out of range")
    return found


def real(content: Any) -> float:
    """Decode a floating-point number.

    Raises:
        TypeError: It is neither a number nor text.
        ValueError: It is not a number.
    """
    if isinstance(content, bool) or not isinstance(content, int | float | str):
        raise TypeError(f"{type(content).__name__} is not a number")
    try:
        return float(content)
    except OverflowError:
        raise ValueError("the number is out of range") from None


def text(content: Any) -> str:
    """Decode text; unsafe characters are escaped."""
    return printable(_string(content))


def name(content: Any) -> str:
    """Decode an identifier; unsafe characters are escaped, and a long one is shortened."""
    return printable_name(_string(content))


def _string(content: Any) -> str:
    if not isinstance(content, str):
        raise TypeError(f"{type(content).__name__} is not text")
    return content


def as_number(value: object) -> float | None:
    """Return a decoded attribute if it is a number, else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_whole(value: object) -> int | None:
    """Return a decoded attribute if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_names(value: object) -> tuple[str, ...]:
    """Return a decoded attribute as names: those of a list, one for a single value, none if it is missing."""
    if value is None or value == "":
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


_KINDS: Final[dict[str, Callable[[Any], Any]]] = {
    "intValue": lambda content: whole(content, -_MOST_INTEGER),
    "doubleValue": real,
    "stringValue": text,
    "bytesValue": text,
    "boolValue": bool,
    "arrayValue": lambda content: [plain(each) for each in content.get("values", [])],
    "kvlistValue": lambda content: {name(each["key"]): plain(each["value"]) for each in content.get("values", [])},
}
"""Decoder of each kind of value."""
