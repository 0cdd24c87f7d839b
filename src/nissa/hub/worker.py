"""One thread and one bounded queue per backend, so that a slow one slows nobody."""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nissa.events import TelemetryEvent
from nissa.hub.mailbox import Mailbox

if TYPE_CHECKING:
    from nissa.hub.backend import Backend
    from nissa.hub.containment import Containment
    from nissa.hub.measurements import Measurement

_logger = logging.getLogger("nissa")

DELIVERED: Final = "delivered"
DROPPED: Final = "dropped"
FAILED: Final = "failed"
REJECTED: Final = "rejected"


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
        containment: Catches what the backend raises.
    """

    def __init__(
        self, name: str, backend: "Backend", *, capacity: int, reserve: int, containment: "Containment"
    ) -> None:
        self.name = name
        self.backend = backend
        self.counts: Counter[tuple[str, str]] = Counter()
        record = getattr(backend, "record", None)
        self._record = record if callable(record) else None
        self._containment = containment
        self._lost = False
        self._mailbox: Mailbox[TelemetryEvent | Measurement | _Flush | _Close] = Mailbox(
            capacity=capacity, reserve=reserve
        )
        self._thread = threading.Thread(target=self._run, name=f"nissa-{name}", daemon=True)
        self._thread.start()

    @property
    def queue_size(self) -> int:
        """How many items wait."""
        return len(self._mailbox)

    @property
    def wants_measurements(self) -> bool:
        """Whether the backend has a ``record``."""
        return self._record is not None

    def put(self, item: "TelemetryEvent | Measurement") -> None:
        """Queue an item without waiting."""
        keep = isinstance(item, TelemetryEvent) and item.is_lifecycle
        dropped = self._mailbox.put(item, keep=keep)
        if dropped is not None:
            self.counts[_kind(dropped), DROPPED] += 1
            if keep and not self._lost:
                self._lost = True
                _logger.error("Backend %r hangs: lifecycle events are lost from here on; they are counted.", self.name)

    def flush(self, timeout: float) -> Callable[[float], bool]:
        """Ask for everything queued so far to be handed on; the returned function waits and says whether it was."""
        request = _Flush(timeout)
        self._mailbox.request(request)
        return request.wait

    def close(self, timeout: float) -> None:
        """Ask the worker to close the backend after what is queued, and to end."""
        self._mailbox.request(_Close(timeout))

    def join(self, timeout: float) -> bool:
        """Wait for the end of the worker's thread; whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                item = self._mailbox.get()
            except queue.Empty:  # pragma: no cover - get() without a timeout does not raise it
                continue
            if isinstance(item, _Close):
                self._call("close", item.timeout)
                return
            if isinstance(item, _Flush):
                self._flush(item)
            else:
                self._deliver(item)

    def _flush(self, request: _Flush) -> None:
        request.done = self._call("flush", request.timeout)
        request.reached.set()

    def _deliver(self, item: "TelemetryEvent | Measurement") -> None:
        done = self._contained(f"backend {self.name!r}", lambda: self._hand_over(item))
        self.counts[_kind(item), DELIVERED if done else FAILED] += 1

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
            self._containment.fault(where, error)
            return False


def _kind(item: object) -> str:
    return str(item.event_type) if isinstance(item, TelemetryEvent) else type(item).__name__
