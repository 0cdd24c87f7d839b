"""A backend that raises, hangs or is slow harms neither training nor another backend."""

import threading
from time import monotonic, sleep

import pytest

from nissa import ConfigurationError, MemoryBackend, NissaHub, TelemetryEvent, TransitionError
from tests.unit.hub.conftest import DROPPABLE, LIFECYCLE, EventsOnly, Raising, Stuck, counts, step

ERRORS = [
    ValueError("no"),
    ConfigurationError("no"),
    TransitionError("no"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_backend_that_raises_every_time_disturbs_no_other_and_is_counted(
    hub: NissaHub, memory: MemoryBackend, error: BaseException
) -> None:
    raising = Raising(error)
    hub.add_backend(raising)
    for epoch in range(5):
        hub.emit(TelemetryEvent(LIFECYCLE, epoch=epoch))
    hub.record(step())

    assert not hub.flush()  # the raising backend could not hand on what it got
    assert [event.epoch for event in memory.events] == [0, 1, 2, 3, 4]
    assert counts(hub, backend="raising") == {(LIFECYCLE, "failed"): 5, ("StepMeasured", "failed"): 1}
    assert counts(hub, backend="memory") == {(LIFECYCLE, "delivered"): 5, ("StepMeasured", "delivered"): 1}
    assert not hub.healthy
    assert hub.close()
    assert raising.calls == ["emit"] * 5 + ["record", "flush", "close"]


def test_a_fault_is_logged_once_per_place_with_its_traceback(hub: NissaHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.add_backend(Raising(ValueError("no")))
    for _ in range(4):
        hub.emit(TelemetryEvent(LIFECYCLE))
    hub.flush()

    assert hub.error_boundary.faults == {"backend 'raising'": 4, "flush of backend 'raising'": 1}
    (first,) = [record for record in caplog.records if "in backend 'raising'" in record.getMessage()]
    assert first.exc_info


def test_a_backend_that_raises_now_and_then_gets_the_rest(hub: NissaHub) -> None:
    seen: list[int | None] = []

    class Moody:
        def emit(self, event: TelemetryEvent) -> None:
            if event.epoch == 1:
                raise RuntimeError
            seen.append(event.epoch)

    hub.add_backend(Moody())
    for epoch in range(3):
        hub.emit(TelemetryEvent(LIFECYCLE, epoch=epoch))
    assert hub.flush()

    assert seen == [0, 2]


def test_a_stuck_backend_holds_up_neither_emit_nor_another_backend(hub: NissaHub, stuck: Stuck) -> None:
    other = EventsOnly()
    hub.add_backend(other)
    started = monotonic()
    for _ in range(100):
        hub.emit(TelemetryEvent(LIFECYCLE))
    took = monotonic() - started

    assert took < 1
    assert not hub.flush(0.2)
    assert len(other.events) == 100
    assert not stuck.events


def test_flush_says_no_when_time_is_up_and_yes_once_the_backend_goes_on(hub: NissaHub, stuck: Stuck) -> None:
    started = monotonic()
    assert not hub.flush(0.1)
    assert 0.09 < monotonic() - started < 2

    stuck.go.set()
    assert hub.flush(10)
    assert len(stuck.events) == 1


def test_a_backend_that_says_that_it_could_not_flush_makes_flush_say_no(hub: NissaHub) -> None:
    class Refusing(EventsOnly):
        def flush(self, timeout: float) -> bool:
            del timeout
            return False

    hub.add_backend(Refusing())

    started = monotonic()
    assert not hub.flush(10)
    assert monotonic() - started < 5  # and does not wait for what will not come


def test_the_timeout_is_passed_on_to_the_backend(hub: NissaHub) -> None:
    given: list[float] = []

    class Noting(EventsOnly):
        def flush(self, timeout: float) -> None:
            given.append(timeout)

        def close(self, timeout: float) -> None:
            given.append(timeout)

    hub.add_backend(Noting())
    assert hub.flush(1.5)
    assert hub.close(2.5)

    assert given == [1.5, pytest.approx(2.5, abs=0.5)]


def test_close_gives_up_on_a_stuck_backend_in_time_and_still_closes_the_others(hub: NissaHub, stuck: Stuck) -> None:
    memory = MemoryBackend()
    hub.add_backend(memory)
    hub.emit(TelemetryEvent(LIFECYCLE))
    started = monotonic()

    assert not hub.close(timeout=0.2)
    assert monotonic() - started < 2
    assert len(memory.events) == 1
    assert stuck.ended == []
    stuck.go.set()
    assert hub.close(timeout=10)
    assert stuck.ended == [pytest.approx(0.2, abs=0.1)]
    assert len(stuck.events) == 2


def test_a_flood_at_a_slow_backend_drops_no_lifecycle_event_and_counts_what_it_drops() -> None:
    gate = threading.Event()
    seen: list[TelemetryEvent] = []
    done: list[int] = []

    class Slow:
        def emit(self, event: TelemetryEvent) -> None:
            gate.wait(30)
            seen.append(event)

        def record(self, measurement: object) -> None:
            del measurement
            sleep(0.0001)
            done.append(1)

    hub = NissaHub(queue_size=1_000)
    hub.add_backend(Slow())
    flood = [step(number) for number in range(50_000)]
    for number, measurement in enumerate(flood):
        hub.record(measurement)
        if number % 500 == 0:
            hub.emit(TelemetryEvent(LIFECYCLE, epoch=number))
    gate.set()
    assert hub.close(timeout=60)

    found = counts(hub, backend="slow")
    assert [event.epoch for event in seen] == list(range(0, 50_000, 500))
    assert found[LIFECYCLE, "delivered"] == 100
    assert (LIFECYCLE, "dropped") not in found
    assert found["StepMeasured", "delivered"] == len(done)
    assert found["StepMeasured", "delivered"] + found["StepMeasured", "dropped"] == 50_000
    assert found["StepMeasured", "dropped"] > 0


def test_what_is_dropped_is_the_oldest_and_makes_the_hub_unhealthy() -> None:
    hub = NissaHub(queue_size=2)
    stuck = Stuck()
    hub.add_backend(stuck)
    hub.emit(TelemetryEvent(LIFECYCLE))
    stuck.entered.wait(10)
    for epoch in range(5):
        hub.emit(TelemetryEvent(DROPPABLE, epoch=epoch))
    stuck.go.set()
    assert hub.close(10)

    assert [event.epoch for event in stuck.events] == [None, 3, 4]
    assert counts(hub, backend="stuck")[DROPPABLE, "dropped"] == 3
    assert not hub.healthy


def test_lifecycle_events_that_a_hanging_backend_loses_are_counted_and_logged_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = NissaHub(lifecycle_queue_size=2)
    stuck = Stuck()
    hub.add_backend(stuck)
    hub.emit(TelemetryEvent(LIFECYCLE))
    stuck.entered.wait(10)
    for epoch in range(5):
        hub.emit(TelemetryEvent(LIFECYCLE, epoch=epoch))
    hub.flush(0.01)
    stuck.go.set()
    assert hub.close(10)

    assert counts(hub, backend="stuck") == {(LIFECYCLE, "delivered"): 3, (LIFECYCLE, "dropped"): 3}
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "'stuck' hangs" in record.getMessage()
    assert len(stuck.ended) == 1
