"""Input that attacks: text for terminals and log files, objects whose methods raise, payloads without an end."""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import torch
from hypothesis import strategies as st

UNSAFE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\nepoch 99 · loss 0.000 -> 0.000 · accuracy 100.0%",
    "\r",
    "\x00",
    "\x7f",
    "\x85",
    "\x9b2J",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u2066",
    "\ud800",
    "\udfff",
    "\ude00\ud83d",
]
"""Text that no output may contain as it is."""

FORBIDDEN = frozenset("".join(UNSAFE)) - frozenset(" epoch99·los0.->acury%1[2J]title;")
FORBIDDEN |= frozenset(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))

texts = st.lists(st.sampled_from(UNSAFE) | st.text(max_size=5), max_size=6).map("".join)
"""Text with unsafe parts."""

NAMES: list[Any] = ["x" * 1_000_000, "é" * 300, b"\xffseed", b"s" * 10_000, "\ud800" * 100_000]
"""Identifiers that are long, and bytes."""


def is_safe(text: str) -> bool:
    """Whether text can be printed on one line and encoded."""
    return not FORBIDDEN & frozenset(text) and not any("\ud800" <= each <= "\udfff" for each in text)


class BoomError(Exception):
    """Raised by hostile objects."""


def boom(*_given: object, **_named: object) -> NoReturn:
    """Raise."""
    raise BoomError("\x1b[2J\nforged")


class Raises:
    """Raises whatever is done with it."""

    __str__ = __repr__ = __eq__ = __hash__ = __bool__ = __float__ = __int__ = __index__ = boom
    __len__ = __iter__ = __contains__ = __getitem__ = __format__ = __lt__ = boom


class RaisesAtAttributes(Raises):
    """Raises at the look-up of an attribute too."""

    def __getattr__(self, name: str) -> Any:
        raise BoomError(name)


class RaisingText(str):
    """Text whose methods raise."""

    __slots__ = ()
    __str__ = __repr__ = __eq__ = __hash__ = upper = startswith = __len__ = encode = boom


class RaisingNumber(int):
    """Number whose conversions raise."""

    __str__ = __repr__ = __eq__ = __hash__ = __int__ = __index__ = __float__ = __lt__ = __le__ = boom


class RaisingFloat(float):
    """Number whose conversions raise."""

    __str__ = __repr__ = __eq__ = __hash__ = __int__ = __float__ = __lt__ = __le__ = boom


class Endless(Mapping[str, Any]):
    """Mapping that never ends."""

    def __getitem__(self, key: str) -> Any:
        return self

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield f"key{number}"
            number += 1

    def __len__(self) -> int:
        return 2**62


class SideEffect:
    """Changes the payload that it is part of when its text is asked for."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload

    def __str__(self) -> str:
        self.payload[f"added{len(self.payload)}"] = self
        return "changed"


def itself(keys: int = 12) -> dict[str, Any]:
    """Return a mapping that contains itself under every key."""
    payload: dict[str, Any] = {}
    payload.update({f"key{number}": payload for number in range(keys)})
    return payload


def changing() -> dict[str, Any]:
    """Return a mapping that changes while it is read."""
    payload: dict[str, Any] = {"a": 1}
    payload["b"] = SideEffect(payload)
    payload["c"] = 3
    return payload


def deep(levels: int = 5_000) -> list[Any]:
    """Return nested lists."""
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


SCALARS: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    10**5_000,
    -(2**63) - 1,
    2**63 - 1,
    True,
    1e308,
    -0.0,
    Fraction(10**400, 3),
    np.float16("inf"),
    np.float32("nan"),
    np.longdouble(1),
    np.int8(-1),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.datetime64("2025-01-01"),
    np.array(0.5),
    np.zeros(3),
    torch.tensor(0.5),
    torch.tensor(2**62),
    torch.tensor(True),
    torch.tensor(float("nan"), dtype=torch.float16),
    torch.zeros(2, 3),
    torch.zeros((), device="meta"),
    torch.nn.Linear(1, 1),
    1j,
    object,
    None,
]
"""Single values of many types."""

OBJECTS: list[Any] = [
    Raises(),
    RaisesAtAttributes(),
    RaisingText("SEED"),
    RaisingNumber(5),
    RaisingFloat(0.5),
    Endless(),
]
"""Objects whose methods raise or never end."""

_POOL: list[Any] = [*SCALARS, *OBJECTS, itself(), changing(), deep(), "x" * 1_000_000, b"\xff"]


def of(pool: list[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for one of some values, none of which hypothesis compares, hashes or prints."""

    def chosen(index: int) -> Any:
        return pool[index]

    return st.integers(0, len(pool) - 1).map(chosen)


names = of(NAMES) | texts
"""Identifiers: unsafe, long, and bytes."""

values = of(_POOL) | texts
"""Values of a payload."""

nested = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3) | st.tuples(inner),
    max_leaves=4,
)
"""Nested values."""
