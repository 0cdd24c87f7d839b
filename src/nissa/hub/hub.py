"""Event hub: passes each event to every backend without blocking training or other backends."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from nissa.errors import ConfigurationError, NissaError
from nissa.events import LIFECYCLE
from nissa.hub.backend import Backend
from nissa.hub.counts import AtomicCounts
from nissa.hub.critical import CriticalSections
from nissa.hub.error_boundary import ErrorBoundary
from nissa.hub.normalize import ForeignEvent, Rejected, emitter, normalize, own_event
from nissa.hub.plain_data import PayloadLimits
from nissa.hub.stopwatch import Stopwatch
from nissa.hub.worker import DROPPED, FAILED, REJECTED, BackendWorker, Notice, Source
from nissa.printable import printable_name

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent
    from nissa.hub.measurements import Measurement

_logger = logging.getLogger("nissa")

QUEUE_SIZE = 10_000
LIFECYCLE_QUEUE_SIZE = 100_000


class Listener(Protocol):
    """Interface through which a hub passes events to its active run."""

    def on_event(self, event: "TelemetryEvent") -> "Sequence[TelemetryEvent]":
        """Return the events that the backends receive for an emitted event.

        Called in order, under the hub's lock. The method must neither wait nor log nor call foreign code.
        """

    def after_dispatch(self, events: "Sequence[TelemetryEvent]") -> None:
        """Log and check dispatched events, after the lock has been released.

        May raise a `NissaError` into the caller of `NissaHub.emit`.
        """

    def close(self) -> None:
        """End the run, because the hub is closing."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Number of items of a kind with an outcome at a backend.

    Args:
        backend: The backend's name; empty for events rejected before any backend.
        kind: Event type, or the measurement's class name.
        outcome: ``delivered``, ``dropped``, ``failed`` or ``rejected``.
    """

    backend: str
    kind: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class _Workers:
    """Workers of a hub; replaced as a whole, so that reading them needs no lock.

    Args:
        present: Active workers by name; they receive new items.
        leaving: Removed workers that may still be delivering.
        retired: Final counts of workers that have ended, by backend, kind and outcome.
        healthy: Whether the backends of workers that have ended were healthy at their end.
    """

    present: dict[str, BackendWorker] = field(default_factory=dict)
    leaving: tuple[BackendWorker, ...] = ()
    retired: "Counter[tuple[str, str, str]]" = field(default_factory=Counter)
    healthy: bool = True

    def all(self) -> tuple[BackendWorker, ...]:
        """Return all workers whose threads may run."""
        return (*self.leaving, *self.present.values())


class NissaHub:
    """Event hub of a process: every event passes through it to every backend.

    Args:
        queue_size: Maximum number of queued droppable items per backend. Beyond it the oldest are dropped and counted.
        lifecycle_queue_size: Maximum number of queued lifecycle events per backend. They are rare and about a kilobyte
            each, so only a backend that hangs for days reaches the limit. The loss is then counted and logged as an
            error.

    Example:
        >>> from nissa import NissaHub, TelemetryEvent
        >>> class Names:
        ...     seen = []
        ...     def emit(self, event):
        ...         self.seen.append(event.event_type)
        >>> hub = NissaHub()
        >>> hub.add_backend(Names())
        'names'
        >>> hub.emit(TelemetryEvent("MY_EVENT"))
        >>> hub.close()
        True
        >>> Names.seen
        ['MY_EVENT']
    """

    def __init__(self, *, queue_size: int = QUEUE_SIZE, lifecycle_queue_size: int = LIFECYCLE_QUEUE_SIZE) -> None:
        self.sections = CriticalSections()
        self.error_boundary = ErrorBoundary(self.sections)
        self._guard = self.error_boundary.guard("hub")
        self.stopwatch = Stopwatch()
        self._rejections: AtomicCounts[str] = AtomicCounts()
        self.closed = False
        # Whether this hub was inherited by a forked child, in which none of its threads exists.
        self.abandoned = False
        self._sizes = {"capacity": queue_size, "reserve": lifecycle_queue_size}
        self.payload_limits = PayloadLimits()
        # Claim of the thread that is starting a run, by process id: a forked child must not find that of its parent.
        self.claims: dict[int, object] = {}
        self._workers = _Workers()
        self._listener: Listener | None = None
        # Lock that keeps the order of events equal in the state table, the analytics and the queues of all backends.
        # Code that holds it must not log, raise or wait, because it blocks every emitting thread.
        self.order = self.sections.lock()

    def add_backend(self, backend: Backend, name: str | None = None, *, source: Source | None = None) -> str:
        """Start delivering to a backend and return its name.

        Args:
            backend: Receiver of every event.
            name: Name of the backend in counts and messages; by default its ``name``, or the name of its class.
            source: Source that the backend's thread polls between two items.

        Raises:
            ConfigurationError: The backend has no ``emit``, its name is taken, or the hub is closed.
        """
        if not callable(getattr(backend, "emit", None)):
            raise ConfigurationError(f"{backend!r} is not a backend: add a method emit(event).")
        chosen = printable_name(name or str(getattr(backend, "name", "") or type(backend).__name__.lower()))
        with self.sections, self.order:
            workers = self._workers
            if self.closed:
                raise ConfigurationError("The hub is closed; nissa.reset_hub() returns a new one.")
            if chosen in workers.present:
                raise ConfigurationError(f"A backend named {chosen!r} exists already; pass another name=.")
            worker = BackendWorker(chosen, backend, error_boundary=self.error_boundary, source=source, **self._sizes)
            self._workers = replace(workers, present={**workers.present, chosen: worker})
        try:
            worker.start()  # after the lock has been released: starting a thread waits until it runs
        except RuntimeError:  # no further thread can be started
            with self.sections, self.order:
                present = {name: each for name, each in self._workers.present.items() if each is not worker}
                self._workers = replace(self._workers, present=present)
            raise
        return chosen

    def remove_backend(self, name: str, timeout: float = 5.0) -> bool:
        """Deliver the queued items, close the backend and remove it. Return whether this finished in time.

        Raises:
            ConfigurationError: The hub has no backend with this name.
        """
        with self.sections, self.order:
            present = dict(self._workers.present)
            worker = present.pop(name, None)
            if worker is not None:
                leaving = (*self._workers.leaving, worker)
                self._workers = replace(self._workers, present=present, leaving=leaving)
        if worker is None:
            raise ConfigurationError(f"No backend is named {name!r}; existing ones: {', '.join(present) or 'none'}.")
        ended = self._end([worker], timeout)
        if ended:  # otherwise its counts can still change
            self._retire(worker)
        return ended

    def _retire(self, worker: BackendWorker) -> None:
        with self.sections, self.order:
            counted = {(worker.name, *key): count for key, count in worker.counts.snapshot().items()}
            self._workers = replace(
                self._workers,
                leaving=tuple(each for each in self._workers.leaving if each is not worker),
                retired=self._workers.retired + Counter(counted),
                healthy=self._workers.healthy and worker.healthy,
            )

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the backends, in the order in which they were added."""
        return tuple(self._workers.present)

    def listen(self, listener: Listener | None) -> None:
        """Set the active run, which maps each emitted event to the events for the backends; None removes it."""
        self._listener = listener

    def resize(
        self, *, queue_size: int, lifecycle_queue_size: int, payload_limits: PayloadLimits | None = None
    ) -> None:
        """Set the queue limits of backends that are added from now on, and the limits of further events' data."""
        self._sizes = {"capacity": queue_size, "reserve": lifecycle_queue_size}
        self.payload_limits = payload_limits or self.payload_limits

    @property
    def has_listener(self) -> bool:
        """Whether a run is active on this hub."""
        return self._listener is not None

    def emit(self, event: object) -> None:
        """Emit a `TelemetryEvent`, or any object or mapping with an event's attributes; never waits.

        Invalid events never raise: they are counted in `rejections` by reason, and logged once per reason. If a
        finalizer or a signal handler emits an event while this thread is in a critical section, the event is delivered
        after the section ends.
        """
        with self.stopwatch.own:
            try:
                limits = self.payload_limits
                known = event.normalize(limits) if isinstance(event, ForeignEvent) else normalize(event, limits=limits)
                self._deliver(known)
            except Rejected as rejection:
                self._reject(rejection.reason, str(rejection))
            except NissaError:
                raise
            except Exception as error:  # noqa: BLE001 - as `_guard` does, which takes longer where nothing is raised
                self.error_boundary.fault("hub", error)

    def bounded(self, event: "TelemetryEvent") -> "TelemetryEvent":
        """Return an event of a run or seed with plain data within the hub's limits, and with escaped text."""
        return own_event(event, self.payload_limits)

    def deliver(self, event: "TelemetryEvent") -> "Sequence[TelemetryEvent]":
        """Pass a normalised event through the listener to every backend; return the events that they receive.

        Within a critical section of the calling thread, delivery is deferred and nothing is returned.
        """
        with self.stopwatch.own:
            return self._deliver(event)

    def _deliver(self, event: "TelemetryEvent") -> "Sequence[TelemetryEvent]":
        # Checked before the lock as well, which may stay locked forever in a forked child.
        if self.closed and self._too_late():
            return ()
        if self.sections.inside:
            self.sections.defer(partial(self._deliver_deferred, event))
            return ()
        return self._dispatch(event)

    def publish(self, make: "Callable[[], Sequence[TelemetryEvent]]") -> "Sequence[TelemetryEvent]":
        """Pass the events that a function creates under the hub's lock to every backend; return them.

        Args:
            make: Function that creates the events. Like `Listener.on_event`, it must neither wait nor log nor call
                foreign code.
        """
        if self.closed and self._too_late():
            return ()
        with self.stopwatch.own:
            return self._dispatch(None, make)

    def _dispatch(
        self, event: "TelemetryEvent | None", make: "Callable[[], Sequence[TelemetryEvent]] | None" = None
    ) -> "Sequence[TelemetryEvent]":
        listener = self._listener
        lost: list[str] = []
        events: Sequence[TelemetryEvent] = ()
        with self.sections, self.order:
            if not (closed := self.closed):
                if event is not None:
                    events = (event,) if listener is None else self._admitted(listener, event)
                elif make is not None:
                    events = make()
                workers = self._workers.present.values()
                for each in events:
                    keep = each.event_type in LIFECYCLE
                    for worker in workers:
                        # Not in a method of the worker: one call more per backend would be a tenth of an emission.
                        dropped = worker.queue.put(each, keep=keep)
                        if dropped is not None and worker.lost(dropped, keep=keep):
                            lost.append(worker.name)
        if closed:
            self._too_late()
        for name in lost:
            _logger.error("Backend %r hangs. From now on, lifecycle events for it are dropped and counted.", name)
        if listener is not None:
            listener.after_dispatch(events)
        return events

    def _deliver_deferred(self, event: "TelemetryEvent") -> None:
        try:
            with self._guard:
                self.deliver(event)
        except NissaError as error:  # a deferred call has no caller that could handle an error of strict mode
            self.error_boundary.fault("hub", error)

    def _admitted(self, listener: Listener, event: "TelemetryEvent") -> "Sequence[TelemetryEvent]":
        try:
            return listener.on_event(event)
        except NissaError:
            raise
        except Exception as error:  # noqa: BLE001 - see `emit`
            self.error_boundary.fault("listener", error)
        return (event,)  # a fault of the listener must not lose the event

    def emitter(self, *, percent: bool = False, env_id: str | int | None = None) -> Callable[[object], None]:
        """Return a callback for a foreign producer that completes and converts its events.

        Args:
            percent: Whether accuracies and improvements of the events are in percent.
            env_id: Environment of events that do not name one.

        Example:
            ``slot.on_telemetry = hub.emitter(percent=True, env_id=0)``
        """
        return emitter(self.emit, percent=percent, env_id=env_id)

    def record(self, measurement: "Measurement") -> None:
        """Pass a measurement to the backends that have a ``record`` method; never waits."""
        if self.closed and self._too_late():
            return
        for worker in self._workers.present.values():
            if worker.wants(measurement):
                worker.put(measurement)

    def notify(self, notice: "Notice") -> None:
        """Pass an item to the backends whose attribute ``receives`` names its type; never waits."""
        if self.closed and self._too_late():
            return
        for worker in self._workers.present.values():
            if worker.wants_explicitly(notice):
                worker.put(notice)

    def abandon(self) -> None:
        """Close the hub in a forked child, without waiting for its threads: they exist only in the parent."""
        self.closed = self.abandoned = True
        self._listener = None
        self.sections.renew_in_child()

    def flush(self, timeout: float = 5.0, *, besides: str | None = None) -> bool:
        """Wait until every backend has exported the items emitted so far. Return whether all finished in time.

        On the thread of a backend, that backend is left out, because it would wait for itself.

        Args:
            timeout: Limit in seconds.
            besides: Name of a backend that is not flushed.
        """
        deadline = monotonic() + timeout
        workers = [
            worker for name, worker in self._workers.present.items() if name != besides and not worker.is_own_thread
        ]
        # A closed hub needs no flush: closing a worker already exports everything, so wait for the end of its thread.
        waits: list[Callable[[float], bool]] = [
            worker.join if self.closed else worker.flush(timeout) for worker in workers
        ]
        return all(wait(max(0.0, deadline - monotonic())) for wait in waits)

    def close(self, timeout: float = 5.0) -> bool:
        """End the active run, deliver the queued items, close every backend and reject further events.

        Return whether all of this finished in time. A second call only waits.
        """
        deadline = monotonic() + timeout
        try:
            if self._listener is not None:
                with self.error_boundary.guard("end of the run"):
                    self._listener.close()
        finally:
            with self.sections, self.order:
                self._listener = None
                self.closed = True
            ended = self._end(list(self._workers.present.values()), max(0.0, deadline - monotonic()))
        return ended

    def deliveries(self) -> list[Delivery]:
        """Return the number of items so far, by backend, kind and outcome."""
        workers = self._workers  # one snapshot, so that a worker being removed is counted exactly once
        counts = Counter(workers.retired)
        for worker in workers.all():
            counts.update({(worker.name, *key): count for key, count in worker.counts.snapshot().items()})
        counts.update({("", reason, REJECTED): count for reason, count in self._rejections.snapshot().items()})
        return [Delivery(*key, count) for key, count in sorted(counts.items())]

    def queue_sizes(self) -> dict[str, int]:
        """Return the number of queued items per backend."""
        return {worker.name: worker.queue_size for worker in self._workers.all()}

    def undelivered(self, backend: str) -> "list[TelemetryEvent]":
        """Return the lifecycle events that a backend has not processed, oldest first; it may be processing the first.

        A backend that was removed while it was still busy is included.
        """
        return [event for worker in self._workers.all() if worker.name == backend for event in worker.undelivered()]

    @property
    def rejections(self) -> Counter[str]:
        """Number of rejected events, by reason."""
        return self._rejections.snapshot()

    def count_rejection(self, reason: str) -> None:
        """Count an event that a run rejected; in a forked child, log once what to do."""
        if not self._too_late_after_fork():
            self._rejections.increment(reason)

    @property
    def healthy(self) -> bool:
        """Whether all items so far were delivered: none was dropped, rejected or failed, and no exporter lost one."""
        workers = self._workers
        return (
            workers.healthy
            and all(worker.healthy for worker in workers.all())
            and not any(delivery.outcome in {DROPPED, FAILED, REJECTED} for delivery in self.deliveries())
        )

    def _too_late(self) -> bool:
        if not self._too_late_after_fork() and self.closed:
            self._reject("closed", "it came after the hub was closed")
        return self.closed

    def _too_late_after_fork(self) -> bool:
        if self.abandoned:
            self._reject(
                "forked", "this process was forked from the one that the run belongs to; call nissa.start() here"
            )
        return self.abandoned

    def _reject(self, reason: str, detail: str) -> None:
        if self._rejections.increment(reason):
            return
        log = partial(
            _logger.warning, "Rejected telemetry (%s). Further rejections of this kind are only counted.", detail
        )
        if self.sections.inside:
            self.sections.defer(log)
        else:
            log()

    @staticmethod
    def _end(workers: list[BackendWorker], timeout: float) -> bool:
        deadline = monotonic() + timeout
        for worker in workers:
            worker.close(timeout)
        return all(worker.join(max(0.0, deadline - monotonic())) for worker in workers)
