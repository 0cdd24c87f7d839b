"""Conversion of producer values to plain data that is safe to store, share between threads and export.

A value on a device is never read, because that would wait for the device. It is replaced by a description.
"""

from collections.abc import Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any, Final

_MOST_NESTING: Final = 6
_MOST_INTEGER: Final = 2**63  # limit of OTLP integers


def to_plain_data(value: object, depth: int = 0) -> Any:
    """Return a value as plain data, without tensors, numpy scalars or shared mutable objects."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # for a member of a string enumeration this returns its value, not its name
    if isinstance(value, Integral | Real):
        return _number(value)
    if type(value).__module__ == "numpy" and type(value).__name__ in {"bool", "bool_"}:
        return bool(value)
    nested = None if depth >= _MOST_NESTING else _nested(value, depth + 1)
    return _described(value) if nested is None else nested


def _number(value: Integral | Real) -> Any:
    if not isinstance(value, Integral):
        try:
            return float(value)
        except OverflowError:  # a fraction beyond the range of a float
            return _described(value)
    whole = int(value)
    return whole if -_MOST_INTEGER <= whole < _MOST_INTEGER else _described(whole)


def _nested(value: object, depth: int) -> dict[str, Any] | list[Any] | None:
    if isinstance(value, Mapping):
        return {str(to_plain_data(key, _MOST_NESTING)): to_plain_data(entry, depth) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain_data(entry, depth) for entry in value]
    names = getattr(type(value), "__dataclass_fields__", None)
    return None if names is None else {name: to_plain_data(getattr(value, name, None), depth) for name in names}


def _described(value: object) -> str:
    kind = type(value).__name__
    if isinstance(value, Mapping | list | tuple | set | frozenset) or hasattr(type(value), "__dataclass_fields__"):
        return f"<{kind}>"  # str() would include all nested values
    try:
        if isinstance(value, Enum):
            return value.name
        shape = getattr(value, "shape", None)  # an array or tensor
        return str(value) if shape is None else f"<{kind} {tuple(shape)}>"
    except Exception:  # noqa: BLE001 - whatever the producer's code raises
        return f"<{kind}>"
