"""What is kept for tests and notebooks."""

from nissa.backends.memory import MemoryBackend
from nissa.events import EventType, TelemetryEvent
from nissa.hub.backend import Backend
from nissa.hub.measurements import StepMeasured


def test_it_keeps_everything_in_order() -> None:
    backend = MemoryBackend()
    events = [TelemetryEvent(EventType.SEED_GERMINATED, seed_id="a"), TelemetryEvent("X"), TelemetryEvent("X")]
    for event in events:
        backend.emit(event)
    step = StepMeasured(env_id=None, step=0, time_unix_nano=1)
    backend.record(step)
    assert backend.events == events
    assert backend.measurements == [step]
    assert backend.of_type("X") == events[1:]
    assert backend.of_type("SEED_GERMINATED") == events[:1]
    assert isinstance(backend, Backend)
