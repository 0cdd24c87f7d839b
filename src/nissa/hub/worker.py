"""Worker of a backend: one thread and one bounded queue, so that a slow backend delays no other backend."""

import itertools
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from nissa.events import LIFECYCLE, TelemetryEvent
from nissa.hub.counts import AtomicCounts
from nissa.hub.queue import BoundedQueue

if TYPE_CHECKING:
    from nissa.hub.backend import Backend
    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.hub.measurements import Measurement

DELIVERED: Final = "delivered"
DROPPED: Final = "dropped"
FAILED: Final = "failed"
REJECTED: Final = "rejected"

_type_of: Final = attrgetter("event_type")

_POLL_AGAIN_SECONDS: Final = 0.1
"""Pause after a failed poll."""

_BATCH: Final = 1_000
"""Maximum number of events that a backend receives at once. They no longer count as queued, like one that is received."""

_LINGER_SECONDS: Final = 0.005
"""Time after an item in which further items do not wake the thread."""


class Notice(Protocol):
    """Item for the backends whose attribute ``receives`` names its type, such as a finding; frozen."""

    @property
    def env_id(self) -> str | None:
        """Environment that the item is about."""


class Source(Protocol):
    """Additional work of a worker between two items."""

    def attach(self, wake: "Callable[[], None]") -> None:
        """Store the function that wakes the worker."""

    def poll(self) -> float | None:
        """Do all work that needs no waiting.

        Return the seconds until the next poll, or None if `BackendWorker.wake` is called for new work.
        """


@dataclass(slots=True)
class _Flush:
    timeout: float
    done: bool = False
    reached: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout: float) -> bool:
        return self.reached.wait(timeout) and self.done


@dataclass(frozen=True, slots=True)
class _Close:
    timeout: float


class BackendWorker:
    """Delivers items to one backend on its own thread, from `start` on.

    Args:
        name: Name of the backend in counts and messages.
        backend: Receiver of the items.
        capacity: Maximum number of queued droppable items.
        reserve: Maximum number of queued lifecycle events.
        error_boundary: Error boundary that catches exceptions of the backend.
        source: Source to poll between two items. The run's worker uses it for the readback of statistics from devices.
    """

    def __init__(
        self,
        name: str,
        backend: "Backend",
        *,
        capacity: int,
        reserve: int,
        error_boundary: "ErrorBoundary",
        source: Source | None = None,
    ) -> None:
        self.name = name
        self.backend = backend
        self.counts: AtomicCounts[tuple[str, str]] = AtomicCounts()
        record = getattr(backend, "record", None)
        self._record = record if callable(record) else None
        self._emit_batch = _batch_method(backend)
        self._receives: tuple[type, ...] | None = getattr(backend, "receives", None)
        self._error_boundary = error_boundary
        self._source = source
        # Time of `time.monotonic` of the next poll; None until the worker is woken.
        self._poll_at: float | None = None if source is None else 0.0
        # Events that the backend has been given and may not have processed yet.
        self._in_hand: Sequence[TelemetryEvent] = ()
        # Only the first lost lifecycle event is logged; `next()` of this counter is atomic.
        self._losses = itertools.count()
        # Separates emitting threads from the backend: `put` never waits, even if the backend hangs.
        self.queue: BoundedQueue[TelemetryEvent | Measurement | Notice | _Flush | _Close] = BoundedQueue(
            capacity=capacity, reserve=reserve, linger=_LINGER_SECONDS
        )
        if source is not None:
            source.attach(self.wake)
        thread_name = f"nissa-{name}" if source is None else "nissa-worker"
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)
        # Set after the thread has been started: until then another thread may close the hub and wait for this worker.
        self._started = threading.Event()

    def start(self) -> None:
        """Start the worker's thread.

        Raises:
            RuntimeError: The process cannot start another thread.
        """
        self._thread.start()
        self._started.set()

    @property
    def queue_size(self) -> int:
        """Number of queued items."""
        return len(self.queue)

    def undelivered(self) -> list[TelemetryEvent]:
        """Return the lifecycle events that the backend has not processed, oldest first; it may be processing the first."""
        queued = self.queue.kept()  # first: what the worker takes meanwhile is in both, and in neither otherwise
        in_hand = [event for event in self._in_hand if event.event_type in LIFECYCLE]
        known = {*map(id, in_hand)}
        return [*in_hand, *(item for item in queued if isinstance(item, TelemetryEvent) and id(item) not in known)]

    @property
    def healthy(self) -> bool:
        """Whether the backend lost nothing behind itself; False if it cannot tell."""
        try:
            return bool(getattr(self.backend, "healthy", True))
        except Exception:  # noqa: BLE001 - a property of the user's backend
            return False

    @property
    def is_own_thread(self) -> bool:
        """Whether the calling thread is that of the worker, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def wants(self, measurement: object) -> bool:
        """Whether the backend has a method ``record`` that takes a measurement."""
        return self._record is not None and (self._receives is None or isinstance(measurement, self._receives))

    def wants_explicitly(self, item: object) -> bool:
        """Whether the attribute ``receives`` of the backend contains the type of an item."""
        return self._record is not None and self._receives is not None and isinstance(item, self._receives)

    def put(self, item: "TelemetryEvent | Measurement | Notice", *, keep: bool = False) -> bool:
        """Queue an item without waiting. Return whether this caused the first loss of a lifecycle event.

        The caller logs the loss after it has released the hub's lock, because a logging handler is foreign code.

        Args:
            item: Event, measurement or notice.
            keep: Whether it is a lifecycle event.
        """
        dropped = self.queue.put(item, keep=keep)
        return dropped is not None and self.lost(dropped, keep=keep)

    def lost(self, dropped: object, *, keep: bool) -> bool:
        """Count an item that a full queue dropped. Return whether it is the first lifecycle event that was lost."""
        self.counts.increment((_kind(dropped), DROPPED))
        return keep and next(self._losses) == 0

    def wake(self) -> None:
        """Wake the worker, so that it polls its source now."""
        self.queue.wake()

    def flush(self, timeout: float) -> Callable[[float], bool]:
        """Request a flush of all items queued so far; return a function that waits for it and returns its success."""
        request = _Flush(timeout)
        self.queue.request(request)
        return request.wait

    def close(self, timeout: float) -> None:
        """Request that the worker deliver the queued items, close the backend and end."""
        self.queue.request(_Close(timeout))

    def join(self, timeout: float) -> bool:
        """Wait for the end of the worker's thread. Return whether it has ended; False on this thread itself."""
        if self.is_own_thread:
            return False
        deadline = monotonic() + timeout
        if not self._started.wait(timeout):
            return False
        self._thread.join(max(0.0, deadline - monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        item: TelemetryEvent | Measurement | Notice | _Flush | _Close | None = None
        while True:
            if item is None:
                # Not between any two items: what has arrived meanwhile is processed together, at a fraction of the cost.
                if self.queue.take_wake() or (self._poll_at is not None and monotonic() >= self._poll_at):
                    self._poll()
                try:
                    item = self.queue.get(None if self._poll_at is None else max(0.0, self._poll_at - monotonic()))
                except queue.Empty:  # it is time to poll, or the worker was woken
                    self._poll()
                    continue
            if isinstance(item, _Close):
                self._call("close", item.timeout)
                self.queue.end(self._discard)
                return
            item = self._process(item)

    def _process(
        self, item: "TelemetryEvent | Measurement | Notice | _Flush"
    ) -> "TelemetryEvent | Measurement | Notice | _Flush | _Close | None":
        """Process an item, with the events behind it if the backend takes several; return the next item, if known."""
        if isinstance(item, _Flush):
            self._flush(item)
        elif not isinstance(item, TelemetryEvent):
            self._deliver(item)
        elif self._emit_batch is None:
            self._in_hand = (item,)
            self._deliver(item)
            self._in_hand = ()
        else:
            self._in_hand = events = [item]  # before more are taken, so that each is in the queue or here
            following = None
            while len(events) < _BATCH:
                following = self.queue.take()
                if not isinstance(following, TelemetryEvent):
                    break
                events.append(following)
            else:
                following = None
            self._deliver_batch(self._emit_batch, events)
            return following
        return None

    def _discard(self, item: "TelemetryEvent | Measurement | Notice | _Flush | _Close") -> None:
        """Count an item as dropped that was queued while the backend closed."""
        if isinstance(item, _Flush):
            item.reached.set()
        elif not isinstance(item, _Close):
            self.counts.increment((_kind(item), DROPPED))

    def _poll(self) -> None:
        source = self._source
        if source is None:
            return
        pause: list[float | None] = [_POLL_AGAIN_SECONDS]  # used if the poll fails and returns no pause

        def poll() -> None:
            pause[0] = source.poll()

        self._contained("polling", poll)
        self._poll_at = None if pause[0] is None else monotonic() + pause[0]

    def _flush(self, request: _Flush) -> None:
        if self._source is None:
            self._finish(request)
            return
        # Flush on a separate thread: an exporter may wait for its collector until the timeout, but polling must go on.
        try:
            threading.Thread(target=self._finish, args=(request,), name="nissa-flush", daemon=True).start()
        except RuntimeError:  # an interpreter that is shutting down cannot start threads
            self._finish(request)

    def _finish(self, request: _Flush) -> None:
        request.done = self._call("flush", request.timeout)
        request.reached.set()

    def _deliver_batch(
        self, emit_batch: "Callable[[Sequence[TelemetryEvent]], object]", events: "list[TelemetryEvent]"
    ) -> None:
        try:
            emit_batch(events)
            done = True
        except BaseException:  # noqa: BLE001 - see `_contained`; the event that caused it fails again
            done = False
        if done:
            for event_type, number in Counter(map(_type_of, events)).items():
                self.counts.add((str(event_type), DELIVERED), number)
        else:
            for place, event in enumerate(events):
                self._in_hand = events[place:]
                self._deliver(event)
        self._in_hand = ()

    def _deliver(self, item: "TelemetryEvent | Measurement | Notice") -> None:
        outcome = DELIVERED
        try:
            if isinstance(item, TelemetryEvent):
                self.backend.emit(item)
            elif self._record is not None:
                self._record(item)
        except BaseException as error:  # noqa: BLE001 - see `_contained`
            self._error_boundary.fault(f"backend {self.name!r}", error)
            outcome = FAILED
        self.counts.increment((_kind(item), outcome))

    def _call(self, method: str, timeout: float) -> bool:
        """Call an optional method of the backend. Return whether it succeeded; a missing method counts as success."""

        def call() -> object:
            function = getattr(self.backend, method, None)
            return None if function is None else function(timeout)

        return self._contained(f"{method} of backend {self.name!r}", call)

    def _contained(self, where: str, call: Callable[[], object]) -> bool:
        """Call a function inside the error boundary. Return whether it neither raised nor returned False."""
        try:
            return call() is not False
        except BaseException as error:  # noqa: BLE001 - on this thread nothing else could end well, SystemExit neither
            self._error_boundary.fault(where, error)
            return False


def _batch_method(backend: "Backend") -> "Callable[[Sequence[TelemetryEvent]], object] | None":
    """Return the method that takes several events; None if it does not belong to the method ``emit`` that is in use."""
    batch = getattr(backend, "emit_batch", None)
    own = getattr(backend, "__dict__", {})
    owner = next((each for each in type(backend).__mro__ if {"emit", "emit_batch"} & vars(each).keys()), None)
    together = owner is not None and {"emit", "emit_batch"} <= vars(owner).keys()
    return batch if callable(batch) and together and "emit" not in own else None


def _kind(item: object) -> str:
    return str(item.event_type) if isinstance(item, TelemetryEvent) else type(item).__name__
