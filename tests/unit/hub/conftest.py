"""Backends that misbehave in one way each, and a hub that is closed after the test."""

import threading
from collections.abc import Iterator

import pytest

from nissa import MemoryBackend, NissaHub, TelemetryEvent
from nissa.hub.measurements import Measurement, StepMeasured

DROPPABLE = "GRADIENT_ANOMALY"
LIFECYCLE = "EPOCH_COMPLETED"


class Raising:
    """Raises at every call."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls: list[str] = []

    def _raise(self, call: str) -> None:
        self.calls.append(call)
        raise self.error

    def emit(self, _event: TelemetryEvent) -> None:
        self._raise("emit")

    def record(self, _measurement: Measurement) -> None:
        self._raise("record")

    def flush(self, _timeout: float) -> bool:
        self._raise("flush")
        return True

    def close(self, _timeout: float) -> None:
        self._raise("close")


class Stuck:
    """Takes nothing before it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.events: list[TelemetryEvent] = []
        self.ended: list[float] = []

    def emit(self, event: TelemetryEvent) -> None:
        self.entered.set()
        self.go.wait(30)
        self.events.append(event)

    def close(self, timeout: float) -> None:
        self.ended.append(timeout)


class EventsOnly:
    """Wants no measurements."""

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []

    def emit(self, event: TelemetryEvent) -> None:
        self.events.append(event)


@pytest.fixture
def hub() -> Iterator[NissaHub]:
    hub = NissaHub()
    yield hub
    hub.close(timeout=5)


@pytest.fixture
def memory(hub: NissaHub) -> MemoryBackend:
    backend = MemoryBackend()
    hub.add_backend(backend)
    return backend


@pytest.fixture
def stuck(hub: NissaHub) -> Iterator[Stuck]:
    """A backend that is inside its first ``emit`` already, and is let go after the test."""
    backend = Stuck()
    hub.add_backend(backend)
    hub.emit(TelemetryEvent(LIFECYCLE, epoch=-1))
    assert backend.entered.wait(10)
    yield backend
    backend.go.set()


def step(number: int = 0) -> StepMeasured:
    """Return a measurement."""
    return StepMeasured(env_id=None, step=number, time_unix_nano=1)


def counts(hub: NissaHub, *, backend: str | None = None) -> dict[tuple[str, str], int]:
    """Return how many items of each kind had each outcome, at one backend or at none."""

    found = [each for each in hub.deliveries() if each.backend == (backend or "")]
    return {(each.kind, each.outcome): each.count for each in found}
