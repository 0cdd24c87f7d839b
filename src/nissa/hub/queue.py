"""Bounded queue from training to a worker thread, safe to use in a signal handler.

`put` acquires no lock. A SIGTERM handler runs on the main thread between any two bytecodes, possibly inside a `put` of
that thread. Waiting there for a lock that the interrupted `put` holds would deadlock. The queue therefore relies only
on deques, whose appends are atomic, and on `SimpleQueue`, which is documented as reentrant.
"""

import itertools
import queue
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Bounded queue with three item classes: droppable items, items to keep, and requests.

    Items that one thread puts are returned in the order in which it put them, across all classes.

    Args:
        capacity: Maximum number of queued droppable items; beyond it the oldest is dropped.
        reserve: Maximum number of queued items to keep.
        linger: Seconds that `get` waits after a burst without being woken by further items. Waking a thread takes as long
            as all the rest of an emitted event, for each of the backends.
    """

    def __init__(self, *, capacity: int, reserve: int, linger: float = 0.0) -> None:
        self._linger = linger
        # Whether `get` looks at the deques again soon, so that items need not wake it.
        self._lingering = False
        self._returned = False
        # One deque per item class, so that many droppable items never displace an item to keep.
        self._capacity, self._reserve = capacity, reserve
        self._droppable: deque[tuple[int, T]] = deque()
        self._kept: deque[tuple[int, T]] = deque()
        self._requests: deque[tuple[int, T]] = deque()
        # Sequence numbers restore the order of items across the deques; `next()` is atomic.
        self._order = itertools.count()
        # A deque cannot be waited for, so the worker sleeps on this queue of wake-ups.
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Distinguishes a call of `wake` from a wake-up for an item.
        self._woken = False
        # Receives the items that come after the end; None before it.
        self._discard: Callable[[T], object] | None = None

    def __len__(self) -> int:
        """Return the number of queued items, without requests."""
        return len(self._droppable) + len(self._kept)

    def put(self, item: T, *, keep: bool) -> T | None:
        """Add an item without waiting; return the item dropped for it, if any.

        Args:
            item: Any value except None.
            keep: Whether it is an item to keep; otherwise it is droppable.
        """
        if keep:
            entries, limit = self._kept, self._reserve
        else:
            entries, limit = self._droppable, self._capacity
        dropped = None
        if len(entries) >= limit:
            try:
                dropped = entries.popleft()[1]
            except IndexError:  # the worker removed it first
                dropped = None
        entries.append((next(self._order), item))
        if not self._lingering:
            self._notify()
        return dropped

    def kept(self) -> list[T]:
        """Return the queued items to keep, oldest first, without removing them."""
        return [item for _, item in self._kept.copy()]  # the copy is atomic; an iteration over the deque is not

    def end(self, discard: Callable[[T], object]) -> None:
        """End the reading: pass the items that are left, and all further ones, to a function.

        The reader calls this, and each later `put` or `request` finds the function. One of the two removes an item, so
        that no item is forgotten.
        """
        self._discard = discard
        self._discard_rest()

    def _discard_rest(self) -> None:
        while self._discard is not None and (item := self.take()) is not None:
            self._discard(item)

    def request(self, item: T) -> None:
        """Add a control item for the worker; it is never dropped and displaces no other item."""
        self._requests.append((next(self._order), item))
        self._notify()

    def wake(self) -> None:
        """Wake a waiting `get`, even without an item."""
        self._woken = True
        self._notify()

    def take_wake(self) -> bool:
        """Return whether `wake` was called since the last call of this method."""
        woken, self._woken = self._woken, False
        return woken

    def get(self, timeout: float | None = None) -> T:
        """Remove and return the oldest item; wait if the queue is empty.

        Raises:
            queue.Empty: No item arrived within ``timeout`` seconds, or `wake` was called.
        """
        while True:
            item = self.take()
            if item is not None:
                return item
            if self.take_wake():
                raise queue.Empty
            if self._returned and self._linger:
                self._wait_for_more(timeout)
            else:
                self._wakeups.get(timeout=timeout)

    def take(self) -> T | None:
        """Remove and return the oldest item; None if the queue is empty."""
        entry = self._take()
        if entry is None:
            return None
        self._returned = True
        return entry[1]

    def _wait_for_more(self, timeout: float | None) -> None:
        """Wait for a request or a call of `wake`, and for items that do not wake."""
        self._returned = False
        self._lingering = True
        try:
            with suppress(queue.Empty):
                self._wakeups.get(timeout=self._linger if timeout is None else min(self._linger, timeout))
        finally:
            self._lingering = False  # before the deques are checked again: an item that saw True is found there

    def _notify(self) -> None:
        if self._discard is not None:
            self._discard_rest()
            return
        # One wake-up is enough: the worker consumes it after the item was added, and then checks all deques.
        if self._wakeups.empty():
            self._wakeups.put(None)

    def _take(self) -> tuple[int, T] | None:
        while (entries := self._first()) is not None:
            try:
                taken = entries.popleft()
            except IndexError:  # `put` dropped the only item of a full deque in the meantime
                continue
            # Check again: an earlier item may have been added to a deque that was empty when `_first` read it.
            now_first = self._first()
            if now_first is None or now_first is entries or (_number(now_first) or 0) > taken[0]:
                return taken
            entries.appendleft(taken)
        return None

    def _first(self) -> deque[tuple[int, T]] | None:
        """Return the deque whose first item is the oldest; None if all are empty."""
        droppable, kept, requests = self._droppable, self._kept, self._requests
        if not requests and not (droppable and kept):  # nearly always; the rest takes three times as long
            return droppable or kept or None
        first: deque[tuple[int, T]] | None = None
        least = 0
        for entries in (droppable, kept, requests):
            if entries and (number := _number(entries)) is not None and (first is None or number < least):
                first, least = entries, number
        return first


def _number(entries: deque[tuple[int, T]]) -> int | None:
    try:
        return entries[0][0]
    except IndexError:
        return None
