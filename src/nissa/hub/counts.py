"""Lock-free counters, safe to increment from any thread, finalizer or signal handler."""

import itertools
from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class AtomicCounts(Generic[K]):
    """Atomic counters by key.

    ``counter[key] += 1`` is a read, an addition and a write, so concurrent increments may be lost. A lock would
    deadlock in a signal handler. ``next()`` of an `itertools.count` is a single operation of the interpreter.
    """

    def __init__(self) -> None:
        self._counts: dict[K, itertools.count[int]] = {}

    def increment(self, key: K) -> int:
        """Increment the count of a key; return its previous value."""
        found = self._counts.get(key)
        if found is None:
            found = self._counts.setdefault(key, itertools.count())
        return next(found)

    def add(self, key: K, number: int) -> None:
        """Increment the count of a key several times."""
        found = self._counts.get(key)
        if found is None:
            found = self._counts.setdefault(key, itertools.count())
        deque(itertools.islice(found, number), maxlen=0)

    def __getitem__(self, key: K) -> int:
        """Return the count of a key, 0 if it was never incremented."""
        found = self._counts.get(key)
        return 0 if found is None else _read(found)

    def snapshot(self) -> Counter[K]:
        """Return all counts."""
        return Counter({key: _read(found) for key, found in list(self._counts.items())})


def _read(found: "itertools.count[int]") -> int:
    return int(repr(found)[6:-1])  # "count(12)": only the text shows the next value without consuming it
