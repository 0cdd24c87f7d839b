"""Routes carbon copies of events to every backend; no backend can hold up training or another backend."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from nissa.errors import ConfigurationError, NissaError
from nissa.hub.backend import Backend
from nissa.hub.counts import AtomicCounts
from nissa.hub.critical import CriticalSections
from nissa.hub.error_boundary import ErrorBoundary
from nissa.hub.normalize import ForeignEvent, Rejected, emitter, normalize
from nissa.hub.stopwatch import Stopwatch
from nissa.hub.worker import DROPPED, FAILED, REJECTED, BackendWorker, Source

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent
    from nissa.hub.measurements import Measurement

_logger = logging.getLogger("nissa")

QUEUE_SIZE = 10_000
LIFECYCLE_QUEUE_SIZE = 100_000


class Listener(Protocol):
    """What a run is to the hub."""

    def on_event(self, event: "TelemetryEvent") -> "Sequence[TelemetryEvent]":
        """Return the events that backends are to see for one.

        Called in order, under the hub's lock: it must neither wait nor log nor call foreign code.
        """

    def after_dispatch(self, events: "Sequence[TelemetryEvent]") -> None:
        """Log and check what was delivered, after the lock was released.

        May raise a `NissaError` into the caller of `NissaHub.emit`.
        """

    def close(self) -> None:
        """End, because the hub does."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How many items of a kind had an outcome at a backend.

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
    """The workers of a hub; replaced as a whole, so that readers need no lock.

    Args:
        present: By name, those that get new items.
        leaving: Those that were removed and may still be delivering.
        retired: What those counted that have ended, by backend, kind and outcome.
    """

    present: dict[str, BackendWorker] = field(default_factory=dict)
    leaving: tuple[BackendWorker, ...] = ()
    retired: "Counter[tuple[str, str, str]]" = field(default_factory=Counter)

    def all(self) -> tuple[BackendWorker, ...]:
        """Return all workers whose threads may run."""
        return (*self.leaving, *self.present.values())


class NissaHub:
    """The place that every event passes.

    Args:
        queue_size: Droppable items that wait per backend at most; beyond it the oldest give way and are counted.
        lifecycle_queue_size: Lifecycle events that wait per backend at most. They are a kilobyte each and few, so that
            only a backend that hangs for days gets there; the loss is then counted and logged as an error.

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
        self.stopwatch = Stopwatch()
        self._rejections: AtomicCounts[str] = AtomicCounts()
        self.closed = False
        self._sizes = {"capacity": queue_size, "reserve": lifecycle_queue_size}
        self._workers = _Workers()
        self._listener: Listener | None = None
        # Keeps the state table, analytics and the queues of all backends in one order of events. Under it nothing is
        # logged, raised or waited for.
        self.order = self.sections.lock()

    def add_backend(self, backend: Backend, name: str | None = None, *, source: Source | None = None) -> str:
        """Start delivering to a backend and return its name.

        Args:
            backend: Receives every event.
            name: How it is called in counts and messages; by default its ``name``, or that of its class.
            source: Polled by the backend's thread between two items.

        Raises:
            ConfigurationError: It has no ``emit``, its name is taken, or the hub is closed.
        """
        if not callable(getattr(backend, "emit", None)):
            raise ConfigurationError(f"{backend!r} is no backend: give it a method emit(event).")
        chosen = name or str(getattr(backend, "name", "") or type(backend).__name__.lower())
        with self.sections, self.order:
            workers = self._workers
            if self.closed:
                raise ConfigurationError("The hub is closed; take a new one from nissa.reset_hub().")
            if chosen in workers.present:
                raise ConfigurationError(f"There is a backend {chosen!r} already; pass another one as name=.")
            worker = BackendWorker(chosen, backend, error_boundary=self.error_boundary, source=source, **self._sizes)
            self._workers = replace(workers, present={**workers.present, chosen: worker})
        return chosen

    def remove_backend(self, name: str, timeout: float = 5.0) -> bool:
        """Deliver what is queued, close the backend and forget it; whether that ended in time.

        Raises:
            ConfigurationError: There is no such backend.
        """
        with self.sections, self.order:
            present = dict(self._workers.present)
            worker = present.pop(name, None)
            if worker is not None:
                leaving = (*self._workers.leaving, worker)
                self._workers = replace(self._workers, present=present, leaving=leaving)
        if worker is None:
            raise ConfigurationError(f"There is no backend {name!r}; there are: {', '.join(present) or 'none'}.")
        ended = self._end([worker], timeout)
        if ended:  # else it is still counting
            self._retire(worker)
        return ended

    def _retire(self, worker: BackendWorker) -> None:
        with self.sections, self.order:
            counted = {(worker.name, *key): count for key, count in worker.counts.snapshot().items()}
            self._workers = replace(
                self._workers,
                leaving=tuple(each for each in self._workers.leaving if each is not worker),
                retired=self._workers.retired + Counter(counted),
            )

    @property
    def backends(self) -> tuple[str, ...]:
        """The names of the backends, in the order in which they were added."""
        return tuple(self._workers.present)

    def listen(self, listener: Listener | None) -> None:
        """Let a run see each event before the backends do, and say which events they get; None ends it."""
        self._listener = listener

    def resize(self, *, queue_size: int, lifecycle_queue_size: int) -> None:
        """Set how much may wait at the backends that are added from now on."""
        self._sizes = {"capacity": queue_size, "reserve": lifecycle_queue_size}

    @property
    def has_listener(self) -> bool:
        """Whether a run listens."""
        return self._listener is not None

    def emit(self, event: object) -> None:
        """Take a `TelemetryEvent`, or any object or mapping with an event's attributes; never waits, never fails.

        What cannot be understood is counted under its reason in `rejections`, and logged once per reason. An event
        that a finalizer or a signal handler emits while this thread is in a critical section is delivered when the
        section is left.
        """
        with self.stopwatch.own, self.error_boundary.guard("hub"):
            try:
                known = event.normalize() if isinstance(event, ForeignEvent) else normalize(event)
            except Rejected as rejection:
                self._reject(rejection.reason, str(rejection))
            else:
                self.deliver(known)

    def deliver(self, event: "TelemetryEvent") -> list["TelemetryEvent"]:
        """Pass a normalised event through the listener to every backend; return what they were given.

        Within a critical section of the calling thread it is deferred, and nothing is returned.
        """
        if self._too_late():  # asked before the lock too, which a forked child may find taken forever
            return []
        if self.sections.inside:
            self.sections.defer(partial(self._deliver_deferred, event))
            return []
        listener = self._listener
        return self._dispatch(lambda: [event] if listener is None else self._admitted(listener, event))

    def publish(self, make: "Callable[[], Sequence[TelemetryEvent]]") -> list["TelemetryEvent"]:
        """Pass to every backend the events that a listener makes under the hub's lock; return them.

        Args:
            make: Like `Listener.admit`, it must neither wait nor log nor call foreign code.
        """
        return [] if self._too_late() else self._dispatch(make)

    def _dispatch(self, make: "Callable[[], Sequence[TelemetryEvent]]") -> list["TelemetryEvent"]:
        listener, lost = self._listener, []
        events: list[TelemetryEvent] = []
        with self.stopwatch.own, self.sections, self.order:
            if not (closed := self.closed):
                events = list(make())
                for worker in self._workers.present.values():
                    lost += [worker.name for each in events if worker.put(each)]
        if closed:
            self._too_late()
        for name in lost:
            _logger.error("Backend %r hangs: lifecycle events are lost from here on; they are counted.", name)
        if listener is not None:
            listener.after_dispatch(events)
        return events

    def _deliver_deferred(self, event: "TelemetryEvent") -> None:
        try:
            with self.error_boundary.guard("hub"):
                self.deliver(event)
        except NissaError as error:  # what strict mode raises has no caller here
            self.error_boundary.fault("hub", error)

    def _admitted(self, listener: Listener, event: "TelemetryEvent") -> list["TelemetryEvent"]:
        with self.error_boundary.guard("listener"):
            return list(listener.on_event(event))
        return [event]  # a fault in there must not lose the event

    def emitter(self, *, percent: bool = False, env_id: str | int | None = None) -> Callable[[object], None]:
        """Return a callback for a foreign producer, saying what its events leave unsaid.

        Args:
            percent: Its accuracies and improvements are in percent.
            env_id: Its environment, for events that name none.

        Example:
            ``slot.on_telemetry = hub.emitter(percent=True, env_id=0)``
        """
        return emitter(self.emit, percent=percent, env_id=env_id)

    def record(self, measurement: "Measurement") -> None:
        """Pass a measurement to the backends that want them; never waits."""
        if self._too_late():
            return
        for worker in self._workers.present.values():
            if worker.wants_measurements:
                worker.put(measurement)

    def flush(self, timeout: float = 5.0, *, besides: str | None = None) -> bool:
        """Wait until every backend has handed on what was emitted so far; False if one had not by then.

        Args:
            timeout: Seconds.
            besides: Name of a backend that is left alone.
        """
        deadline = monotonic() + timeout
        workers = [worker for name, worker in self._workers.present.items() if name != besides]
        # Closing hands everything on, and nothing comes after it.
        waits: list[Callable[[float], bool]] = [
            worker.join if self.closed else worker.flush(timeout) for worker in workers
        ]
        return all(wait(max(0.0, deadline - monotonic())) for wait in waits)

    def close(self, timeout: float = 5.0) -> bool:
        """End the run that listens, deliver what is queued, close every backend and refuse further events.

        Returns whether all of that ended in time. A second call does nothing but wait.
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
        """Return how every kind of item fared at every backend so far."""
        workers = self._workers  # a snapshot: while one leaves, it is counted neither twice nor not at all
        counts = Counter(workers.retired)
        for worker in workers.all():
            counts.update({(worker.name, *key): count for key, count in worker.counts.snapshot().items()})
        counts.update({("", reason, REJECTED): count for reason, count in self._rejections.snapshot().items()})
        return [Delivery(*key, count) for key, count in sorted(counts.items())]

    def queue_sizes(self) -> dict[str, int]:
        """Return how many items wait at each backend."""
        return {worker.name: worker.queue_size for worker in self._workers.all()}

    @property
    def rejections(self) -> Counter[str]:
        """How many events were rejected, by reason."""
        return self._rejections.snapshot()

    def count_rejection(self, reason: str) -> None:
        """Count an event that a run rejects."""
        self._rejections.increment(reason)

    @property
    def healthy(self) -> bool:
        """Whether nothing was lost, rejected or failed so far."""
        return not any(delivery.outcome in {DROPPED, FAILED, REJECTED} for delivery in self.deliveries())

    def _too_late(self) -> bool:
        if self.closed:
            self._reject("closed", "it came after the hub was closed")
        return self.closed

    def _reject(self, reason: str, detail: str) -> None:
        if self._rejections.increment(reason):
            return
        log = partial(_logger.warning, "Rejected telemetry (%s). Further ones of this kind are only counted.", detail)
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
