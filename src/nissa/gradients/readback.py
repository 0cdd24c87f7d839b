"""Numbers on their way from devices to the host, without ever waiting for a device.

A `Transfer` is begun on the training thread: on CUDA an asynchronous copy into pinned memory with an event behind it,
elsewhere nothing at all. `Readback` keeps transfers in order; the worker polls their events and delivers what has arrived.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
import torch

from nissa.hub.counts import AtomicCounts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.hub.error_boundary import ErrorBoundary

T = TypeVar("T")

_NUMPY: Final = {torch.float64, torch.float32, torch.float16, torch.int64, torch.int32}

_POLL_SECONDS: Final = 0.0002

_MOST_POLL_SECONDS: Final = 0.005
"""Pause between two polls of a device that is far behind."""

_PATIENCE_SECONDS: Final = 2.0
"""Pause after which rows are read whose arrival nobody announced."""

_MOST_LEFT: Final = 64
"""How many such rows are left at most."""

_MOST_AT_ONCE: Final = 256
"""Rows that are delivered together at most, so that events get their turn."""

_MOST_ROWS: Final = 10_000
"""Rows of all kinds that wait at most per environment: a kilobyte each where they carry no statistics."""


class Transfer:
    """Tensors on their way to the host.

    Args:
        tensors: Owned by the transfer from now on; at most one per device.
    """

    __slots__ = ("_events", "_hosts")

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._events: list[Any] = []
        self._hosts = [self._begin(tensor) for tensor in tensors]

    def _begin(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cuda":
            return tensor
        # torch's host allocator recycles pinned blocks, so this allocates only until the pipeline is full.
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        event.record(torch.cuda.current_stream(tensor.device))
        self._events.append(event)
        return host

    def ready(self) -> bool:
        """Whether the numbers are on the host; never waits."""
        return all(event.query() for event in self._events)

    def arrays(self, timeout: float | None = None) -> "list[NDArray[np.generic]]":
        """Return the numbers, waiting for them.

        Raises:
            TimeoutError: They did not come within ``timeout`` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self.ready():
            if deadline is not None and monotonic() > deadline:
                raise TimeoutError("The device has not finished the step whose gradients were asked for.")
            sleep(_POLL_SECONDS)
        return [host.cpu().numpy() for host in self._hosts]


def number(value: object, timeout: float) -> float | None:
    """Return a number that the caller gave, reading it from its device where it is a tensor.

    Returns None where there is none, or where the device did not finish within ``timeout`` seconds.
    """
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        return float(value)  # type: ignore[arg-type]  # whatever float() takes; what it refuses is the caller's mistake
    if value.numel() != 1:
        raise ValueError(f"Expected one number, not a tensor of shape {tuple(value.shape)}; give its mean.")
    try:
        (array,) = Transfer([value.detach().reshape(1).to(torch.float64)]).arrays(timeout)
    except TimeoutError:
        return None
    return float(array[0])


def on_host(value: torch.Tensor) -> float | None:
    """Return a number that is in the host's memory already; None where it has to travel like those of a device.

    Read as an array: that is no operation of torch's, each of which costs tens of microseconds between two steps.
    """
    # Of a subclass, or within a transform of torch's, there may be no array; nor of a number whose sign is in a bit of its own.
    plain = type(value) is torch.Tensor and value.device.type == "cpu" and value.dtype in _NUMPY
    return float(value.numpy().item()) if plain and not value.requires_grad and not value.is_neg() else None


def side_by_side(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the columns of two tensors of as many rows, on the same device."""
    if left.device.type != "cpu":
        return torch.cat([left, right], dim=1)
    return torch.from_numpy(np.concatenate((left.numpy(), right.numpy()), axis=1))  # torch would wake its threads


@dataclass(slots=True, eq=False)
class _Row(Generic[T]):
    """One row on its way: its copy, and what the host knows about it.

    Args:
        transfer: None once the row was dropped.
        sample: Whether it carries statistics.
    """

    transfer: Transfer | None
    note: T
    sample: bool


class _EnvironmentRows(Generic[T]):
    """The rows of one environment, in the order of its steps.

    A lane is filled by the thread that steps and emptied by the worker. Both use single operations of a deque only, so
    that neither waits for the other.

    Attributes:
        rows: All rows and, in their place, the requests that wait for them.
        samples: Those of the rows that carry statistics, which are large; the oldest is dropped where there are too many.
    """

    __slots__ = ("rows", "samples")

    def __init__(self) -> None:
        self.rows: deque[_Row[T] | threading.Event] = deque()
        self.samples: deque[_Row[T]] = deque()


class Readback(Generic[T]):
    """Rows of numbers on their way from devices to the host.

    It has no thread: `poll` is called by the worker of the run. Rows of one environment are delivered in order; a device
    that hangs holds up its own environment only.

    Args:
        deliver: Called on the worker's thread with the notes and arrays of rows that have arrived, in order.
        capacity: How many rows with statistics wait at most per environment; beyond it the oldest is dropped.
        error_boundary: Catches what goes wrong on the worker's thread.
        environment_of: Returns what tells environments apart, by note.
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
        self._most_left = min(_MOST_LEFT, capacity // 2)
        self._capacity = capacity
        self._deliver = deliver
        self._error_boundary = error_boundary
        self._environment_of = environment_of
        self._by_environment: dict[object, _EnvironmentRows[T]] = {}
        self._dropped: AtomicCounts[str] = AtomicCounts()
        self._closed = False
        self._polls_in_vain = 0

    def attach(self, wake: Callable[[], None]) -> None:
        """Keep what wakes the worker that polls."""
        self._wake = wake

    @property
    def dropped(self) -> int:
        """How many rows were dropped because the worker fell behind, or a device did."""
        return self._dropped["row"]

    def submit(self, transfer: Transfer, metadata: T, *, hurry: bool = True) -> None:
        """Queue a row without waiting.

        Args:
            transfer: Begun already.
            metadata: What it comes with.
            hurry: Whether the row carries statistics, and the worker is woken. To wake a thread costs more than to read a few numbers, and it then
                takes the interpreter from training; rows that can wait are read several at a time.
        """
        if self._closed:
            return
        queued = self._rows_of(metadata)
        row = _Row(transfer, metadata, sample=hurry)
        if hurry:
            queued.samples.append(row)
            if len(queued.samples) > self._capacity:
                self._drop_oldest(queued.samples)
        queued.rows.append(row)
        if len(queued.rows) > _MOST_ROWS:
            self._drop_oldest(queued.rows)
        if hurry or len(queued.rows) > self._most_left:
            self._wake()

    def poll(self) -> float:
        """Deliver the rows that have arrived, and return the seconds after which to look again; never waits."""
        found = {self._poll_rows(queued) for queued in list(self._by_environment.values())}
        self._polls_in_vain = self._polls_in_vain + 1 if _Polled.WAITING in found else 0
        if _Polled.MORE in found:
            return 0.0
        if _Polled.WAITING not in found:
            return _PATIENCE_SECONDS
        # A device that is milliseconds behind is polled closely, one that hangs is not.
        return float(min(_POLL_SECONDS * 2 ** min(self._polls_in_vain, 10), _MOST_POLL_SECONDS))

    def flush(self, timeout: float) -> bool:
        """Wait until every row submitted so far was delivered; whether it was in time."""
        return self._wait(list(self._by_environment.values()), timeout)

    def wait(self, key: object, timeout: float) -> bool:
        """Wait until every row that one environment submitted so far was delivered; whether it was in time."""
        queued = self._by_environment.get(key)
        return self._wait([] if queued is None else [queued], timeout)

    def close(self, timeout: float) -> bool:
        """Deliver what was submitted and take no more; whether that was in time."""
        flushed = self._closed or self.flush(timeout)
        self._closed = True
        return flushed

    def _wait(self, environments: list[_EnvironmentRows[T]], timeout: float) -> bool:
        if self._closed:
            return False
        reached = [threading.Event() for _ in environments]
        for event, queued in zip(reached, environments, strict=True):
            queued.rows.append(event)
        if reached:
            self._wake()
        deadline = monotonic() + timeout
        return all(event.wait(max(0.0, deadline - monotonic())) for event in reached)

    def _rows_of(self, metadata: T) -> _EnvironmentRows[T]:
        key = self._environment_of(metadata)
        return self._by_environment.get(key) or self._by_environment.setdefault(key, _EnvironmentRows())

    def _drop_oldest(self, rows: "deque[Any]") -> None:
        with suppress(IndexError):  # the worker took the last one first
            row = rows.popleft()
            if isinstance(row, threading.Event):
                row.set()
            else:
                row.transfer = None  # frees its memory; the worker passes over the row
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
            elif (transfer := row.transfer) is not None:
                if not transfer.ready():
                    queued.rows.appendleft(row)
                    polled = _Polled.WAITING
                elif _taken(queued, row):
                    arrived.append((row.note, transfer.arrays()))
                    polled = _Polled.MORE if len(arrived) >= _MOST_AT_ONCE else polled
        if arrived:
            with self._error_boundary.guard("gradient readback"):
                self._deliver(arrived)
        for event in reached:
            event.set()
        return polled


class _Polled(Enum):
    """State of a lane after a poll."""

    EMPTY = "empty"
    MORE = "more"
    WAITING = "waiting"


def _taken(queued: _EnvironmentRows[T], row: _Row[T]) -> bool:
    """Take a row out of the bounded samples; return False where it was dropped meanwhile."""
    if row.sample:
        try:
            queued.samples.remove(row)
        except ValueError:
            return False
    return True
