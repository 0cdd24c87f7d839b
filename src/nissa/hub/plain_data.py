"""Conversion of payloads to plain data of bounded size.

The result consists of dictionaries with text keys, lists, text, numbers and None. It is safe to store, share between
threads and export, and shares nothing mutable with the payload. A value on a device is never read, because that would
wait for the device; it is replaced by a description. An exception of the producer's code (``__str__``, a property, an
iterator) costs only the value that raised it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any, Final

from nissa.printable import MOST_NAME, MOST_TEXT, decoded, printable, printable_name

_MOST_INTEGER: Final = 2**63  # limit of OTLP integers
_CONTAINERS: Final = (Mapping, list, tuple, set, frozenset)
_BYTES: Final = (bytes, bytearray, memoryview)
_PLAIN_TYPES: Final = frozenset({float, bool, type(None)})
"""Types of which each value stays as it is."""

_SHORT_KEY: Final = 64
"""Maximum length of the keys that `is_plain` expects."""

_MOST_KNOWN_KEYS: Final = 1_000
_KNOWN_KEYS: Final[set[str]] = set()
"""Keys that were found to be short and printable."""


@dataclass(frozen=True, slots=True)
class PayloadLimits:
    """Maximum size of the data of one event.

    Args:
        items: Number of entries of all nested containers together.
        depth: Number of nested containers.
        characters: Length of all text together, keys included.
    """

    items: int = 1_000
    depth: int = 6
    characters: int = 65_536


DEFAULT_LIMITS: Final = PayloadLimits()


class PlainData:
    """Converter for the data of one event; counts what is left of the limits.

    Attributes:
        truncated: Whether anything was left out because of a limit.
    """

    __slots__ = ("_characters", "_depth", "_enclosing", "_items", "truncated")

    def __init__(self, limits: PayloadLimits = DEFAULT_LIMITS) -> None:
        self.truncated = False
        self._items = limits.items
        self._depth = limits.depth
        self._characters = limits.characters
        # Identities of the containers around the current value: one that contains itself is not entered again.
        self._enclosing: list[int] = []

    def __call__(self, value: object) -> Any:
        """Return a value as plain data; never raises an `Exception`."""
        kind = type(value)
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]  # that it is text was just checked
        if value is None or kind is float or kind is bool:
            return value
        try:
            return self._converted(value)
        except Exception:  # noqa: BLE001 - whatever the producer's code raises
            return _type_name(value)

    def mapping(self, entries: Iterable[tuple[object, object]]) -> dict[str, Any]:
        """Return the entries of a mapping as plain data, as far as the limits allow."""
        found: dict[str, Any] = {}
        for key, value in entries:
            if not self.take_item():
                break
            found[self.key(key)] = value if self._is_plain(value) else self(value)
        return found

    def _is_plain(self, value: object) -> bool:
        """Whether a value stays as it is; its text is counted then. Most are, and this is several times faster."""
        kind = type(value)
        if kind is str:
            length = len(value)  # type: ignore[arg-type]  # that it is text was just checked
            if length > MOST_TEXT or length > self._characters or not value.isprintable():  # type: ignore[attr-defined]
                return False
            self._characters -= length
            return True
        return value is None or kind is float or kind is bool or (kind is int and _is_whole(value))

    def key(self, key: object) -> str:
        """Return the key of an entry as text."""
        if type(key) is not str or len(key) > MOST_NAME or not key.isprintable():
            key = to_name(key) or "None"
        self._characters -= len(key)
        return key

    def _converted(self, value: object) -> Any:
        if isinstance(value, _CONTAINERS) or hasattr(type(value), "__dataclass_fields__"):
            return self._container(value)
        scalar = _scalar(value)
        return self._text(scalar) if isinstance(scalar, str) else scalar

    def _container(self, value: Any) -> Any:
        if len(self._enclosing) >= self._depth or id(value) in self._enclosing:
            self.truncated = True
            return _type_name(value)  # str() would include all nested values
        self._enclosing.append(id(value))
        try:
            if isinstance(value, Mapping):
                return self.mapping(value.items())
            names = getattr(type(value), "__dataclass_fields__", None)
            if names is not None:
                return self.mapping((name, getattr(value, name, None)) for name in names)
            return self._sequence(value)
        finally:
            self._enclosing.pop()

    def _sequence(self, values: Iterable[object]) -> list[Any]:
        found: list[Any] = []
        for value in values:
            if not self.take_item():
                break
            found.append(self(value))
        return found

    def take_item(self) -> bool:
        """Count an entry of a container; return False if the limits allow no further one."""
        if self._items <= 0 or self._characters <= 0:
            self.truncated = True
            return False
        self._items -= 1
        return True

    def _text(self, text: str) -> str:
        most = max(0, min(MOST_TEXT, self._characters))
        safe = printable(text, most)
        self._characters -= len(safe)
        if len(text) > most:
            self.truncated = True
        return safe


def is_plain(payload: dict[Any, Any], limits: PayloadLimits) -> bool:
    """Return whether all entries of a dictionary stay as they are, within the limits.

    This is most of the cost of an event, so unusual entries that would stay as they are may yield False.
    """
    characters = _SHORT_KEY * len(payload)
    for key, value in payload.items():
        if type(key) is not str or not (key in _KNOWN_KEYS or _is_short_key(key)):
            return False
        kind = type(value)
        if kind is str:
            if len(value) > MOST_TEXT or not value.isprintable():
                return False
            characters += len(value)
        elif kind not in _PLAIN_TYPES and (kind is not int or not -_MOST_INTEGER <= value < _MOST_INTEGER):
            return False
    return len(payload) <= limits.items and characters < limits.characters


def _is_short_key(key: str) -> bool:
    """Return whether a key stays as it is; remember it, since events of a type have the same keys."""
    plain = len(key) <= _SHORT_KEY and key.isprintable()
    if plain and len(_KNOWN_KEYS) < _MOST_KNOWN_KEYS:
        _KNOWN_KEYS.add(key)
    return plain


def to_plain_data(value: object, limits: PayloadLimits = DEFAULT_LIMITS) -> Any:
    """Return a value as plain data, without tensors, numpy scalars or shared mutable objects."""
    return PlainData(limits)(value)


def to_name(value: object) -> str | None:
    """Return an identifier as text of bounded length; None stays None."""
    return None if value is None else printable_name(value if type(value) is str else str(_flat(value)))


def to_text(value: object) -> str:
    """Return a sentence as text of bounded length; None becomes empty."""
    return "" if value is None else printable(value if type(value) is str else str(_flat(value)))


def _flat(value: object) -> object:
    """Return a value as a scalar; a container becomes the name of its type."""
    try:
        return _type_name(value) if isinstance(value, _CONTAINERS) else _scalar(value)
    except Exception:  # noqa: BLE001 - whatever the producer's code raises
        return _type_name(value)


def _scalar(value: object) -> Any:
    """Return a value that is no container as text, number or None."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # for a member of a string enumeration this returns its value, not its name
    if isinstance(value, Integral | Real):
        return _number(value)
    if isinstance(value, _BYTES):
        return decoded(value)
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in {"bool", "bool_"}:
        return bool(value)
    single = _single_element(value)
    return _described(value) if single is None else _scalar(single)


def _is_whole(value: Any) -> bool:
    return bool(-_MOST_INTEGER <= value < _MOST_INTEGER)


def _number(value: Integral | Real) -> Any:
    if not isinstance(value, Integral):
        try:
            return float(value)
        except OverflowError:  # a fraction beyond the range of a float
            return _described(value)
    whole = int(value)
    return whole if _is_whole(whole) else _described(whole)


def _single_element(value: Any) -> Any:
    """Return the number in a NumPy array or CPU tensor without dimensions, None for anything else.

    The type is compared by name, because this module must not import torch.
    """
    kind = type(value)
    if (kind.__module__, kind.__name__) not in {("numpy", "ndarray"), ("torch", "Tensor")} or value.shape != ():
        return None
    device = getattr(value, "device", "cpu")
    if getattr(device, "type", device) != "cpu":
        return None
    try:
        found = value.item()
    except Exception:  # noqa: BLE001 - a tensor inside a transform of torch.func has no value
        return None
    return found if isinstance(found, bool | int | float) else None


def _described(value: object) -> str:
    try:
        if isinstance(value, Enum):
            return value.name
        shape = getattr(value, "shape", None)  # an array or tensor
        return str.__str__(str(value)) if shape is None else f"<{type(value).__name__} {tuple(shape)}>"
    except Exception:  # noqa: BLE001 - whatever the producer's code raises
        return _type_name(value)


def _type_name(value: object) -> str:
    return printable_name(f"<{type(value).__name__}>")
