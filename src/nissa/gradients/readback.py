"""Asynchronous readback of numbers from devices to the host; the training thread never waits for a device.

The training thread starts a `Transfer`. `Readback` keeps transfers in order. The worker polls them and delivers the rows
that have arrived.
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from nissa.hub.counts import AtomicCounts
from nissa.kernels.transfer import Transfer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nissa.hub.error_boundary import ErrorBoundary

T = TypeVar("T")

_PACE_SECONDS: Final = 0.05
"""Pause between two polls while rows arrive. Waking the worker for each row would cost more than reading it, and the woken
thread would compete with training for the GIL."""

_POLL_SECONDS: Final = 0.0002
"""Shortest pause between two polls of a device that is behind while somebody waits for its rows."""

_MOST_POLL_SECONDS: Final = 0.005
"""Longest pause between two such polls."""

_AWAKE_SECONDS: Final = 1.0
"""Time without rows after which the worker sleeps until it is woken."""

_HOLD_SECONDS: Final = 2.0
"""Time after which the worker sends a row that was held back: the process may be killed at any time."""

_MOST_AT_ONCE: Final = 256
"""Maximum number of rows per delivery, so that the worker can process events in between."""

_MOST_ROWS: Final = 10_000
"""Maximum number of queued rows per environment; a row without statistics occupies about a kilobyte."""


class HeldRow(Protocol):
    """Row that is not submitted yet, because a loss may follow.

    Attributes:
        place: Its place in the queue, which `Readback.hold` reserves.
    """

    place: "_PendingRow[Any] | None"

    @property
    def environment(self) -> object:
        """Environment key of the row."""

    @property
    def on_host(self) -> bool:
        """Whether the worker may send the row, because this starts no work on a device."""

    def send(self) -> None:
        """Submit the row."""


@dataclass(slots=True, eq=False)
class _PendingRow(Generic[T]):
    """One queued row: its transfer and its metadata.

    Args:
        transfer: None after the row was dropped, and while its place is only reserved.
        sample: Whether the row carries statistics.
        reserved: Whether the row is held back; later rows of its environment wait behind it.
    """

    transfer: Transfer | None
    metadata: T | None
    sample: bool = False
    reserved: bool = False


class _EnvironmentRows(Generic[T]):
    """Queues of the rows of one environment, in the order of its steps.

    The training thread appends and the worker removes. Both use only single deque operations, which are atomic, so that
    no lock is needed and neither thread waits for the other.

    Attributes:
        rows: All rows, in order. It also holds the events of `Readback.flush`, which are set once all earlier rows were
            delivered.
        samples: The rows that carry statistics. They have their own queue because they are large and need a lower
            limit; beyond it the oldest is dropped.
    """

    __slots__ = ("rows", "samples")

    def __init__(self) -> None:
        self.rows: deque[_PendingRow[T] | threading.Event] = deque()
        self.samples: deque[_PendingRow[T]] = deque()

    @property
    def has_arrivals(self) -> bool:
        """Whether the first entry is an event or a row that is not held back."""
        try:
            first = self.rows[0]
        except IndexError:
            return False
        return isinstance(first, threading.Event) or not first.reserved


class Readback(Generic[T]):
    """Queue of rows that are copied from devices to the host.

    It has no thread of its own: the worker of the run calls `poll`. Rows of one environment are delivered in order. A
    device that hangs delays its own environment only.

    Args:
        deliver: Called on the worker thread with the metadata and arrays of rows that have arrived, in order.
        capacity: Maximum number of queued rows with statistics per environment; beyond it the oldest is dropped.
        error_boundary: Catches exceptions on the worker thread.
        environment_of: Returns the environment key of a row from its metadata.
    """

    def __init__(
        self,
        deliver: "Callable[[list[tuple[T, list[NDArray[np.generic]]]]], None]",
        *,
        capacity: int,
        error_boundary: "ErrorBoundary",
        environment_of: Callable[[T], object] = lambda _: None,
    ) -> None:
        self._wake: Callable[[], None] = lambda: None
        # Whether the worker does not poll until it is woken. The worker sets it and then looks for rows once more; the
        # thread that clears it wakes the worker.
        self._asleep = True
        self._last_row = 0.0
        # Events of threads that wait for rows.
        self._awaited: set[threading.Event] = set()
        self._capacity = capacity
        self._deliver = deliver
        self._error_boundary = error_boundary
        self._environment_of = environment_of
        self._by_environment: dict[object, _EnvironmentRows[T]] = {}
        # Rows that are held back, by the time when they were. Only `pop` removes them, which is atomic, so that each row
        # has one owner.
        self._held: dict[HeldRow, float] = {}
        self._dropped: AtomicCounts[str] = AtomicCounts()
        self._closed = False
        self._polls_in_vain = 0

    def attach(self, wake: Callable[[], None]) -> None:
        """Set the callback that wakes the polling worker."""
        self._wake = wake

    @property
    def dropped(self) -> int:
        """Number of rows that were dropped because the worker or a device fell behind."""
        return self._dropped["row"]

    def submit(
        self, transfer: Transfer, metadata: T, *, hurry: bool = True, place: "_PendingRow[T] | None" = None
    ) -> None:
        """Queue a row without waiting.

        Args:
            transfer: The running transfer.
            metadata: Metadata of the row.
            hurry: Whether the row carries statistics. Their number is limited, so that the worker is woken when half of
                the places are taken.
            place: Place of a row that was held back.
        """
        if self._closed:
            return
        queued = self._rows_of(self._environment_of(metadata))
        row = place or _PendingRow(transfer, metadata)
        row.transfer, row.metadata, row.sample = transfer, metadata, hurry
        if hurry:
            queued.samples.append(row)
            if len(queued.samples) > self._capacity:
                self._drop_oldest(queued.samples)
        if place is None:
            self._append(queued, row)
        row.reserved = False  # last: from now on the worker reads the row
        if hurry and len(queued.samples) == self._capacity // 2:
            self._wake()
        self._wake_sleeping()

    def hold(self, row: HeldRow) -> None:
        """Hold a row back until it is taken, until somebody waits for rows, or until the worker's patience ends."""
        if self._closed:
            return
        if row.place is None:
            row.place = _PendingRow(None, None, reserved=True)
            self._append(self._rows_of(row.environment), row.place)
        self._held[row] = monotonic()
        self._wake_sleeping()

    def take(self, row: HeldRow) -> bool:
        """Take a row that was held back; return False if it was sent."""
        return self._held.pop(row, None) is not None

    def abandon(self) -> None:
        """Drop all rows that are held back, and ignore new rows."""
        self._closed = True
        self._held.clear()

    def poll(self) -> float | None:
        """Deliver the rows that have arrived; never waits.

        Return the seconds until the next poll, or None until the worker is woken.
        """
        self._asleep = False
        if self._held:
            due = monotonic() - _HOLD_SECONDS
            self._send_held(lambda row, since: row.on_host and since <= due)
        found = {self._poll_rows(queued) for queued in list(self._by_environment.values())}
        self._polls_in_vain = self._polls_in_vain + 1 if _Polled.WAITING in found else 0
        if _Polled.MORE in found:
            return 0.0
        if self._awaited and _Polled.WAITING in found:
            # Back off exponentially: short pauses suit a device that is milliseconds behind, but waste CPU if it hangs.
            return float(min(_POLL_SECONDS * 2 ** min(self._polls_in_vain, 10), _MOST_POLL_SECONDS))
        now = monotonic()
        if now - self._last_row < _AWAKE_SECONDS:
            return _PACE_SECONDS
        return self._sleep()

    def _sleep(self) -> float | None:
        """Return the pause of a worker without rows: until it is woken, or until a row was held back long enough."""
        self._asleep = True
        if any(queued.has_arrivals for queued in list(self._by_environment.values())):  # after the last look
            return 0.0
        return _HOLD_SECONDS if self._held else None

    def _wake_sleeping(self) -> None:
        if self._asleep:
            self._asleep = False
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until all rows submitted so far were delivered; return False on timeout."""
        self._send_held(lambda *_: True)
        return self._wait(list(self._by_environment.values()), timeout)

    def wait(self, key: object, timeout: float) -> bool:
        """Wait until all rows of one environment submitted so far were delivered; return False on timeout."""
        self._send_held(lambda row, _: row.environment == key)
        queued = self._by_environment.get(key)
        return self._wait([] if queued is None else [queued], timeout)

    def close(self, timeout: float) -> bool:
        """Deliver all submitted rows, then ignore new ones; return False on timeout."""
        flushed = self._closed or self.flush(timeout)
        self._closed = True
        return flushed

    def _send_held(self, chosen: Callable[[HeldRow, float], bool]) -> None:
        # A list of the items would allocate in between, and allocation may run a finalizer and so another thread.
        for row, since in self._held.copy().items():
            if chosen(row, since) and self.take(row):
                row.send()

    def _wait(self, environments: list[_EnvironmentRows[T]], timeout: float) -> bool:
        if self._closed:
            return False
        reached = [threading.Event() for _ in environments]
        self._awaited.update(reached)
        for event, queued in zip(reached, environments, strict=True):
            queued.rows.append(event)
        if reached:
            self._wake()
        deadline = monotonic() + timeout
        try:
            return all(event.wait(max(0.0, deadline - monotonic())) for event in reached)
        finally:
            self._awaited.difference_update(reached)

    def _append(self, queued: _EnvironmentRows[T], row: "_PendingRow[T]") -> None:
        queued.rows.append(row)
        if len(queued.rows) > _MOST_ROWS:
            self._drop_oldest(queued.rows)

    def _rows_of(self, key: object) -> _EnvironmentRows[T]:
        return self._by_environment.get(key) or self._by_environment.setdefault(key, _EnvironmentRows())

    def _drop_oldest(self, rows: "deque[Any]") -> None:
        with suppress(IndexError):  # the worker removed the last row meanwhile
            row = rows.popleft()
            if isinstance(row, threading.Event):
                row.set()
            else:
                row.transfer = None  # frees its memory; the worker skips the row
                self._dropped.increment("row")

    def _poll_rows(self, queued: _EnvironmentRows[T]) -> "_Polled":
        arrived: list[tuple[T, list[NDArray[np.generic]]]] = []
        reached: list[threading.Event] = []
        polled = _Polled.EMPTY
        while queued.rows and polled is _Polled.EMPTY:
            try:
                row = queued.rows.popleft()
            except IndexError:  # it was dropped meanwhile
                break
            if isinstance(row, threading.Event):
                reached.append(row)
            elif row.reserved:
                queued.rows.appendleft(row)
                break
            elif (transfer := row.transfer) is not None and row.metadata is not None:
                if not transfer.ready():
                    queued.rows.appendleft(row)
                    polled = _Polled.WAITING
                elif _remove_sample(queued, row):
                    arrived.append((row.metadata, transfer.arrays()))
                    polled = _Polled.MORE if len(arrived) >= _MOST_AT_ONCE else polled
        if arrived or polled is _Polled.WAITING:
            self._last_row = monotonic()
        self._hand_over(arrived, reached)
        return polled

    def _hand_over(self, arrived: "list[tuple[T, list[NDArray[np.generic]]]]", reached: list[threading.Event]) -> None:
        if arrived:
            with self._error_boundary.guard("gradient readback"):
                self._deliver(arrived)
        for event in reached:
            event.set()


class _Polled(Enum):
    """State of an environment's queue after a poll."""

    EMPTY = "empty"
    MORE = "more"
    WAITING = "waiting"


def _remove_sample(queued: _EnvironmentRows[T], row: _PendingRow[T]) -> bool:
    """Remove a row from the bounded queue of samples; return False if it was dropped meanwhile."""
    if row.sample:
        try:
            queued.samples.remove(row)
        except ValueError:
            return False
    return True
