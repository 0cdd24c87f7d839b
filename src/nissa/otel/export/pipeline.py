"""Export thread of a run: takes finished spans, log records and metrics, and writes them to a sink.

The thread never waits for a network: a sink that sends does so on threads of its own. Producers only append to a queue,
so that they can run inside a signal handler or a finalizer. Lifecycle spans, log records, and the counters that the same events
have changed are written within `LIFECYCLE_SECONDS`, all other metrics once per interval.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakMethod

from nissa.otel.compat import suppress_instrumentation

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

    from nissa.journal import Signal
    from nissa.otel.otlp.outcome import SendResult

_logger = logging.getLogger("nissa")

LIFECYCLE_SECONDS: Final = 0.1
"""Time for which spans and log records are collected before they are written together."""

MAX_METRIC_SECONDS: Final = 5.0
"""Maximum time between two writes of metrics, so that the death of the process loses no more."""

_QUEUE_SIZE: Final = 100_000
"""Maximum number of spans, and of log records, that wait for the export thread, which takes them ten times per second."""

_FULL: Final = "the export thread could not keep up, and its queue was full"
_FAILED: Final = "they could not be written: "

_WORK_SECONDS: Final = 0.0005
_PAUSE_SECONDS: Final = 0.001
_MOST_PAUSES: Final = 40
"""Pauses in a round of writing, so that spans and log records that come meanwhile are written in time."""

_JOIN_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.1


class Client(Protocol):
    """The part of `nissa.otel.otlp.client.OtlpClient` that a sink uses."""

    def send(self, payload: bytes, *, gzipped: bool = True) -> "SendResult":
        """Send a request, compressed or not."""

    def close(self) -> None:
        """Close connections."""


class Sink(Protocol):
    """Destination of the telemetry; all methods are called on the export thread."""

    def write_spans(self, spans: list[Any]) -> None:
        """Write SDK spans."""

    def write_records(self, records: list[Any]) -> None:
        """Write SDK log records."""

    def write_metrics(self, data: "MetricsData") -> None:
        """Write the metrics of a collection."""

    def deliver(self, *, now: bool = False) -> float:
        """Continue pending deliveries, without waiting for them; return the seconds until the next call.

        Args:
            now: Try again at once what failed before.
        """

    @property
    def outcome(self) -> bool | None:
        """Whether everything written was delivered; None while a delivery is still being tried."""

    @property
    def missing(self) -> int:
        """Number of items so far that were refused or lost."""

    def lost(self, signal: "Signal", items: int, reason: str) -> None:
        """Count and log items that will never be delivered."""

    def late(self, seconds: float) -> None:
        """Log what is not delivered after a flush that took so long; called on the thread that waited."""

    @property
    def size_bytes(self) -> int:
        """Size of what is on disk, or waits in memory."""

    def close(self) -> None:
        """Close files and connections; called once, after the last write."""


@dataclass(slots=True, eq=False)
class _Flush:
    """Request of another thread; `done` is set when `outcome` is known."""

    started: bool = False
    outcome: bool = False
    last: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class _Queue:
    """Bounded queue that any thread appends to without a lock; at the bound the oldest item gives way."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque(maxlen=_QUEUE_SIZE)
        self._lost = 0

    def __len__(self) -> int:
        return len(self._items)

    def append(self, item: object) -> None:
        if len(self._items) == self._items.maxlen:
            self._lost += 1  # threads that meet here may count one item instead of two
        self._items.append(item)

    def take(self) -> list[Any]:
        """Remove and return the items, while others may append."""
        return [self._items.popleft() for _ in range(len(self._items))]

    def take_lost(self) -> int:
        """Return the number of items that gave way since the last call."""
        lost = self._lost
        self._lost -= lost
        return lost


class _Pauses:
    """Pauses between the parts of an export, in which the training thread has the interpreter.

    Without them it would wait for the whole export: while one thread runs Python code, another gets the interpreter only
    every 5 ms, and loses it again in its next tensor operation.
    """

    def __init__(self) -> None:
        self._left = 0
        self._since = 0.0

    def allow(self, most: int) -> None:
        """Begin a round of at most so many pauses."""
        self._left = most
        self._since = monotonic()

    def __call__(self) -> None:
        """Wait for a moment, unless the last pause has just been."""
        if self._left and monotonic() - self._since > _WORK_SECONDS:
            self._left -= 1
            sleep(_PAUSE_SECONDS)
            self._since = monotonic()


class ExportPipeline:
    """Owner of the export thread.

    Args:
        make_sink: Returns the sink, given a function that wakes the thread, and one that the sink calls between the parts of
            its work, see `_Pauses`; called in this process, and again in a forked child that has something to export.
        collect: Returns the metrics to write, None for none; foreign callbacks run in it.
        collect_changed: Returns the counters that events have changed, None for none; called whenever spans or log records
            are written.
        interval: Seconds between two writes of metrics; infinity writes them only at a flush and at the end.
        exit_seconds: Time limit of `close`.

    Attributes:
        sink: The sink.
        thread: The export thread.
    """

    def __init__(
        self,
        make_sink: Callable[[Callable[[], object], Callable[[], object]], Sink],
        *,
        collect: "Callable[[], MetricsData | None]",
        collect_changed: "Callable[[], MetricsData | None]" = lambda: None,
        interval: float,
        exit_seconds: float,
    ) -> None:
        self._make_sink = make_sink
        self._collect = collect
        self._collect_changed = collect_changed
        self._interval = interval
        self._exit_seconds = exit_seconds
        self._reset()
        self._begin()
        if hasattr(os, "register_at_fork"):
            # Keep only a weak reference: a fork hook cannot be unregistered and would keep the pipeline alive.
            reset = WeakMethod(self._reset)
            os.register_at_fork(after_in_child=lambda: (found := reset()) and found())

    def _reset(self) -> None:
        """Forget everything that belongs to the parent process or to an earlier start."""
        self._pid: int | None = None
        self._closed = False
        self._idle = False
        self._spans, self._records = _Queue(), _Queue()
        self._wakeups: SimpleQueue[_Flush | None] = SimpleQueue()
        self._flushes: list[_Flush] = []
        self._reported_missing = 0
        self._next_metrics = monotonic() + self._interval

    def _begin(self) -> None:
        self._pauses = _Pauses()
        self.sink = self._make_sink(self.wake, self._pauses)
        self._pid = os.getpid()
        self._reported_missing = self.sink.missing  # a parent process may have lost some
        self.thread = threading.Thread(target=self._run, name="nissa-export", daemon=True)
        self.thread.start()

    # Called by any thread, also inside signal handlers and finalizers.

    def add_span(self, span: Any) -> None:
        """Queue an ended span."""
        self._spans.append(span)
        self._wake()

    def add_record(self, record: Any) -> None:
        """Queue a log record."""
        self._records.append(record)
        self._wake()

    def wake(self) -> None:
        """Have the thread continue its deliveries now."""
        self._wakeups.put(None)

    def _wake(self) -> None:
        if self._pid is None:  # a forked child: the thread and the sink exist only in its parent
            self._begin()
        if self._idle:
            self._idle = False
            self._wakeups.put(None)

    def flush(self, timeout: float) -> bool:
        """Write and deliver everything queued so far.

        Returns:
            Whether everything was delivered within ``timeout`` seconds, and nothing was refused or lost since the last
            flush. An unreachable receiver is tried once.
        """
        return self._request(_Flush(), timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Flush, then end the thread; what is not delivered in time stays in the journal.

        Returns:
            Whether everything was delivered within ``timeout`` seconds (by default the exit timeout).
        """
        deadline = self._exit_seconds if timeout is None else timeout
        delivered = self._request(_Flush(last=True), deadline)
        if self._pid == os.getpid():
            self._closed = True
            self._wakeups.put(None)
            self.thread.join(_JOIN_SECONDS)
        return delivered

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Flush, with the signature of a provider's method."""
        return self.flush(timeout_millis / 1_000)

    def shutdown(self) -> bool:
        """Close, with the signature of a provider's method."""
        return self.close()

    def _request(self, request: _Flush, timeout: float) -> bool:
        if self._closed or self._pid != os.getpid():
            return True
        self._wakeups.put(request)
        deadline = monotonic() + timeout
        while not request.done.wait(min(_POLL_SECONDS, max(0.0, deadline - monotonic()))):
            if monotonic() >= deadline:
                self.sink.late(timeout)
                return False
            if not self.thread.is_alive():  # it may have ended before it saw the request
                return False
        return request.outcome

    # On the export thread.

    def _run(self) -> None:
        suppress_instrumentation()
        pause = 0.0
        while not self._closed:
            self._wait(pause)
            pause = self._work()
        self._write_queues()
        self._guarded(self.sink.close)

    def _wait(self, seconds: float) -> None:
        """Wait for work, then a little longer for more of it; a flush is not kept waiting."""
        self._idle = True
        if not (self._spans or self._records) and not self._receive(seconds):
            self._idle = False
            return
        self._idle = False
        deadline = monotonic() + LIFECYCLE_SECONDS
        while not self._flushes and not self._closed and self._receive(deadline - monotonic()):
            pass

    def _receive(self, seconds: float) -> bool:
        """Take one request or wakeup; return whether there was one in time."""
        try:
            request = self._wakeups.get(timeout=None if seconds == inf else max(0.0, seconds))
        except Empty:
            return False
        if request is not None:
            self._flushes.append(request)
        return True

    def _work(self) -> float:
        """Write what is queued, and continue deliveries; return the seconds until the next call."""
        self._pauses.allow(0 if self._flushes else _MOST_PAUSES)
        eventful = bool(self._spans or self._records)
        self._write_queues()
        fresh = [request for request in self._flushes if not request.started]
        if fresh or monotonic() >= self._next_metrics:
            self._next_metrics = monotonic() + self._interval
            self._write_metrics(self._collect)
            self._write_queues()  # a callback of the application may have ended spans
        elif eventful:
            self._write_metrics(self._collect_changed)
        for request in fresh:
            request.started = True
        pause = self._deliver(now=bool(fresh))
        outcome = self.sink.outcome
        if outcome is not None:
            self._answer(outcome)
        return min(pause, self._next_metrics - monotonic())

    def _deliver(self, *, now: bool) -> float:
        try:
            return self.sink.deliver(now=now)
        except Exception:
            _logger.exception("Telemetry could not be delivered; it is tried again.")
            return 1.0

    def _answer(self, outcome: bool) -> None:
        flushes, self._flushes = self._flushes, []
        if flushes:
            missing = self.sink.missing
            outcome = outcome and missing == self._reported_missing
            self._reported_missing = missing
        for request in flushes:
            request.outcome = outcome
            self._closed = self._closed or request.last
            request.done.set()

    def _write_queues(self) -> None:
        self._write_queue("traces", self._spans, self.sink.write_spans)
        self._write_queue("logs", self._records, self.sink.write_records)

    def _write_queue(self, signal: "Signal", queue: _Queue, write: Callable[[list[Any]], object]) -> None:
        if lost := queue.take_lost():
            self.sink.lost(signal, lost, _FULL)
        items = queue.take()
        try:
            if items:
                write(items)
        except Exception as error:
            _logger.exception("Telemetry could not be exported.")
            self.sink.lost(signal, len(items), f"{_FAILED}{error}")

    def _write_metrics(self, collect: "Callable[[], MetricsData | None]") -> None:
        data = None
        try:
            data = collect()
            self._pauses()
            if data is not None:
                self.sink.write_metrics(data)
        except Exception as error:
            # What could not be collected is collected again; what could not be written is lost.
            _logger.exception("Metrics could not be exported.")
            if data is not None:
                self.sink.lost("metrics", number_of_points(data), f"{_FAILED}{error}")

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            _logger.exception("The export could not be ended.")


def number_of_points(data: "MetricsData") -> int:
    """Return the number of data points of a collection."""
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
