"""One thread and one bounded queue per backend, so that a slow one slows nobody."""

import itertools
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from nissa.events import TelemetryEvent
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

_POLL_AGAIN_SECONDS: Final = 0.1
"""Pause after a poll that failed."""


class Source(Protocol):
    """Work that a worker does between two items."""

    def attach(self, wake: "Callable[[], None]") -> None:
        """Keep the function that ends the worker's sleep."""

    def poll(self) -> float | None:
        """Do what can be done without waiting.

        Returns the seconds after which to poll again, None where `BackendWorker.wake` is called when there is new work.
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
    """Delivers to one backend, on a thread of its own.

    Args:
        name: How the backend is called in counts and messages.
        backend: Where items go.
        capacity: How many droppable items wait at most.
        reserve: How many lifecycle events wait at most.
        error_boundary: Catches what the backend raises.
        source: Polled between two items; the run's own worker reads rows of statistics back from devices this way.
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
        self._error_boundary = error_boundary
        self._source = source
        self._losses = itertools.count()
        self._ended = False
        self._queue: BoundedQueue[TelemetryEvent | Measurement | _Flush | _Close] = BoundedQueue(
            capacity=capacity, reserve=reserve
        )
        if source is not None:
            source.attach(self.wake)
        thread_name = f"nissa-{name}" if source is None else "nissa-worker"
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)
        self._thread.start()

    @property
    def queue_size(self) -> int:
        """How many items wait."""
        return len(self._queue)

    @property
    def wants_measurements(self) -> bool:
        """Whether the backend has a ``record``."""
        return self._record is not None

    def put(self, item: "TelemetryEvent | Measurement") -> bool:
        """Queue an item without waiting; return whether this is the first lifecycle event to be lost.

        The caller logs that: it may hold the hub's lock here, and a logging handler is foreign code.
        """
        keep = isinstance(item, TelemetryEvent) and item.is_lifecycle
        dropped = self._queue.put(item, keep=keep)
        if self._ended:
            self._drop_rest()
        if dropped is None:
            return False
        self.counts.increment((_kind(dropped), DROPPED))
        return keep and next(self._losses) == 0

    def wake(self) -> None:
        """Poll the source now."""
        self._queue.wake()

    def flush(self, timeout: float) -> Callable[[float], bool]:
        """Request that everything queued so far be handed on; the returned function waits and returns whether it was."""
        request = _Flush(timeout)
        self._queue.request(request)
        return request.wait

    def close(self, timeout: float) -> None:
        """Request that the worker close the backend after what is queued, and end."""
        self._queue.request(_Close(timeout))

    def join(self, timeout: float) -> bool:
        """Wait for the end of the worker's thread; whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            pause = self._poll()
            try:
                item = self._queue.get(pause)
            except queue.Empty:
                continue
            if isinstance(item, _Close):
                self._call("close", item.timeout)
                self._ended = True
                self._drop_rest()
                return
            if isinstance(item, _Flush):
                self._flush(item)
            else:
                self._deliver(item)

    def _drop_rest(self) -> None:
        """Count what was on its way while the backend closed.

        Called by this thread after it set `_ended` and by each `put` that sees it set: one of them finds the item.
        """
        with suppress(queue.Empty):
            while True:
                item = self._queue.get(0)
                if isinstance(item, _Flush):
                    item.reached.set()
                elif not isinstance(item, _Close):
                    self.counts.increment((_kind(item), DROPPED))

    def _poll(self) -> float | None:
        if self._source is None:
            return None
        pause: list[float | None] = [_POLL_AGAIN_SECONDS]  # after a fault, for the source's own answer
        source = self._source

        def poll() -> None:
            pause[0] = source.poll()

        self._contained("polling", poll)
        return pause[0]

    def _flush(self, request: _Flush) -> None:
        if self._source is None:
            self._finish(request)
            return
        # An exporter may wait for its collector until the timeout. Polling and delivery go on meanwhile.
        try:
            threading.Thread(target=self._finish, args=(request,), name="nissa-flush", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down and starts no more threads
            self._finish(request)

    def _finish(self, request: _Flush) -> None:
        request.done = self._call("flush", request.timeout)
        request.reached.set()

    def _deliver(self, item: "TelemetryEvent | Measurement") -> None:
        done = self._contained(f"backend {self.name!r}", lambda: self._hand_over(item))
        self.counts.increment((_kind(item), DELIVERED if done else FAILED))

    def _hand_over(self, item: "TelemetryEvent | Measurement") -> None:
        if isinstance(item, TelemetryEvent):
            self.backend.emit(item)
        elif self._record is not None:
            self._record(item)

    def _call(self, method: str, timeout: float) -> bool:
        """Call an optional method; whether it succeeded (a missing one does)."""

        def call() -> object:
            function = getattr(self.backend, method, None)
            return None if function is None else function(timeout)

        return self._contained(f"{method} of backend {self.name!r}", call)

    def _contained(self, where: str, call: Callable[[], object]) -> bool:
        """Whether a call of the backend neither raised nor said no."""
        try:
            return call() is not False
        except BaseException as error:  # noqa: BLE001 - on this thread nothing else could end well, SystemExit neither
            self._error_boundary.fault(where, error)
            return False


def _kind(item: object) -> str:
    return str(item.event_type) if isinstance(item, TelemetryEvent) else type(item).__name__
