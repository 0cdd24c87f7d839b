"""A bounded queue between training and a reader thread that a signal handler may use too.

No lock is taken on the way in: a SIGTERM handler runs on the main thread between any two bytecodes, possibly inside a
`put` of that same thread, and a lock held there would never be released. Appending to a deque is atomic and
`SimpleQueue` is reentrant by its documentation; nothing else is used.
"""

import itertools
import queue
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Three lanes, one order: items that must be kept, items of which the oldest give way, and requests.

    What one thread puts is taken in the order in which it put it, whatever the lanes.

    Args:
        capacity: How many droppable items wait at most.
        reserve: How many items that must be kept wait at most.
    """

    def __init__(self, *, capacity: int, reserve: int) -> None:
        self._limits = {False: capacity, True: reserve}
        self._by_priority: dict[bool, deque[tuple[int, T]]] = {False: deque(), True: deque()}
        self._requests: deque[tuple[int, T]] = deque()
        self._all = (*self._by_priority.values(), self._requests)
        self._order = itertools.count()
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._woken = False

    def __len__(self) -> int:
        """Return how many items wait, requests apart."""
        return sum(map(len, self._by_priority.values()))

    def put(self, item: T, *, keep: bool, wake: bool = True) -> T | None:
        """Add an item without ever waiting; return the one that had to give way, if any.

        Args:
            item: Not None.
            keep: Whether it must be kept.
            wake: Whether a reader that waits is told; else it finds the item when it is told of another, or looks again.
        """
        entries = self._by_priority[keep]
        dropped = None
        if len(entries) >= self._limits[keep]:
            try:
                dropped = entries.popleft()[1]
            except IndexError:  # the reader took it first
                dropped = None
        self._append(entries, item, wake=wake)
        return dropped

    def request(self, item: T) -> None:
        """Add an item that never gives way, and for which none does; for the few that steer the reader."""
        self._append(self._requests, item)

    def wake(self) -> None:
        """End a `get` that waits, with or without an item."""
        self._woken = True
        self._notify()

    def get(self, timeout: float | None = None) -> T:
        """Take the oldest item, waiting for one.

        Raises:
            queue.Empty: None came within ``timeout`` seconds, or `wake` was called.
        """
        while True:
            item = self._take()
            if item is not None:
                return item[1]
            if self._woken:
                self._woken = False
                raise queue.Empty
            self._wakeups.get(timeout=timeout)

    def _notify(self) -> None:
        # One wakeup is enough: it is taken after the item came, and so finds it.
        if self._wakeups.empty():
            self._wakeups.put(None)

    def _append(self, entries: deque[tuple[int, T]], item: T, *, wake: bool = True) -> None:
        entries.append((next(self._order), item))
        if wake:
            self._notify()

    def _take(self) -> tuple[int, T] | None:
        while (entries := self._first()) is not None:
            try:
                taken = entries.popleft()
            except IndexError:  # a full lane dropped its only item while we looked
                continue
            # Something earlier may have come to a lane that we had found empty before we looked at this one.
            now_first = self._first()
            if now_first is None or now_first is entries or (_number(now_first) or 0) > taken[0]:
                return taken
            entries.appendleft(taken)
        return None

    def _first(self) -> deque[tuple[int, T]] | None:
        """Return the lane whose first item is the oldest; None where all are empty."""
        numbers = [
            (number, index) for index, entries in enumerate(self._all) if (number := _number(entries)) is not None
        ]
        return self._all[min(numbers)[1]] if numbers else None


def _number(entries: deque[tuple[int, T]]) -> int | None:
    try:
        return entries[0][0]
    except IndexError:
        return None
