"""Closing a hub, the run that listens on it, and what comes too late."""

import threading
from collections.abc import Sequence
from time import monotonic

import pytest

from nissa import MemoryBackend, NissaHub, TelemetryEvent, TransitionError
from tests.unit.hub.conftest import LIFECYCLE, Raising, counts, step


class Listening:
    """A run that sends a copy of each event, and a last one when it ends."""

    def __init__(self, hub: NissaHub) -> None:
        self.hub = hub
        self.closes = 0
        self.settled: list[TelemetryEvent] = []
        self.admitting: Exception | None = None
        self.settling: Exception | None = None
        self.closing: Exception | None = None

    def on_event(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        if self.admitting:
            raise self.admitting
        return [event, event]

    def after_dispatch(self, events: Sequence[TelemetryEvent]) -> None:
        self.settled.extend(events)
        if self.settling:
            raise self.settling

    def close(self) -> None:
        self.closes += 1
        self.hub.emit(TelemetryEvent("TRAINING_ENDED"))
        if self.closing:
            raise self.closing


@pytest.fixture
def run(hub: NissaHub) -> Listening:
    listener = Listening(hub)
    hub.listen(listener)
    return listener


def test_closing_delivers_what_is_queued_and_then_closes_each_backend_once(hub: NissaHub) -> None:
    seen: list[str] = []

    class Noting:
        def emit(self, event: TelemetryEvent) -> None:
            seen.append(event.event_type)

        def close(self, timeout: float) -> None:
            assert timeout >= 0
            seen.append("close")

    hub.add_backend(Noting())
    for _ in range(3):
        hub.emit(TelemetryEvent(LIFECYCLE))

    assert hub.close()
    assert hub.close()
    assert seen == [LIFECYCLE, LIFECYCLE, LIFECYCLE, "close"]


def test_what_comes_after_the_end_is_counted_and_reaches_nobody(hub: NissaHub, memory: MemoryBackend) -> None:
    hub.close()
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.deliver(TelemetryEvent(LIFECYCLE))
    hub.record(step())

    assert hub.rejections == {"closed": 3}
    assert counts(hub) == {("closed", "rejected"): 3}
    assert memory.events == []
    assert memory.measurements == []
    assert not hub.healthy


def test_each_event_that_races_with_the_end_is_either_delivered_or_counted() -> None:
    for _ in range(20):
        hub = NissaHub()
        memory = MemoryBackend()
        hub.add_backend(memory)
        started = threading.Barrier(3)

        def produce(hub: NissaHub = hub, started: threading.Barrier = started) -> None:
            started.wait()
            for _ in range(100):
                hub.emit(TelemetryEvent(LIFECYCLE))

        threads = [threading.Thread(target=produce) for _ in range(2)]
        for thread in threads:
            thread.start()
        started.wait()
        assert hub.close()
        for thread in threads:
            thread.join()
        assert len(memory.events) + hub.rejections["closed"] == 200


def test_what_is_on_its_way_when_the_hub_closes_is_counted(
    hub: NissaHub, memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = hub.order

    class ClosingLock:
        """Closes the hub for the one who is about to enter."""

        def __enter__(self) -> None:
            monkeypatch.setattr(hub, "order", lock)
            hub.close()
            lock.acquire()

        def __exit__(self, *error: object) -> None:
            lock.release()

    monkeypatch.setattr(hub, "order", ClosingLock())
    hub.emit(TelemetryEvent(LIFECYCLE))

    assert hub.rejections == {"closed": 1}
    assert memory.events == []


def test_a_measurement_on_its_way_when_the_hub_closes_is_counted(
    hub: NissaHub, memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.close()
    monkeypatch.setattr(hub, "_too_late", lambda: False)  # the hub was open when the call began
    hub.record(step())

    assert memory.measurements == []
    assert counts(hub, backend="memory") == {("StepMeasured", "dropped"): 1}


def test_flushing_a_closed_hub_does_not_wait(hub: NissaHub, memory: MemoryBackend) -> None:
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.close()
    started = monotonic()

    assert hub.flush(5)
    assert monotonic() - started < 2
    assert len(memory.events) == 1


def test_a_hub_without_backends_flushes_and_closes_at_once(hub: NissaHub) -> None:
    assert hub.flush(0)
    assert hub.close(0)


def test_a_listener_decides_what_backends_see(hub: NissaHub, memory: MemoryBackend, run: Listening) -> None:
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.flush()

    assert hub.has_listener
    assert len(memory.events) == 2
    assert run.settled == memory.events


def test_a_listener_that_left_decides_nothing(hub: NissaHub, memory: MemoryBackend, run: Listening) -> None:
    hub.listen(None)
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.flush()

    assert not hub.has_listener
    assert len(memory.events) == 1
    assert run.settled == []


def test_a_listener_that_is_strict_raises_into_the_caller_after_delivery(
    hub: NissaHub, memory: MemoryBackend, run: Listening
) -> None:
    run.settling = TransitionError("refused")
    with pytest.raises(TransitionError):
        hub.emit(TelemetryEvent(LIFECYCLE))
    hub.flush()
    run.settling = None

    assert len(memory.events) == 2


def test_a_fault_of_the_listener_is_contained_and_loses_no_event(
    hub: NissaHub, memory: MemoryBackend, run: Listening
) -> None:
    run.admitting = RuntimeError("a fault")
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.flush()

    assert len(memory.events) == 1
    assert hub.error_boundary.faults == {"listener": 1}


def test_a_fault_after_delivery_is_contained(hub: NissaHub, memory: MemoryBackend, run: Listening) -> None:
    run.settling = RuntimeError("a fault")
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.flush()

    assert len(memory.events) == 2
    assert hub.error_boundary.faults == {"hub": 1}


def test_closing_ends_the_run_first_and_once(hub: NissaHub, memory: MemoryBackend, run: Listening) -> None:
    hub.close()
    hub.close()

    assert run.closes == 1
    assert {event.event_type for event in memory.events} == {"TRAINING_ENDED"}
    assert hub.rejections == {}


def test_a_run_that_cannot_end_keeps_no_backend_open(hub: NissaHub, memory: MemoryBackend, run: Listening) -> None:
    run.closing = RuntimeError("a fault")

    assert hub.close()
    assert memory.events
    assert hub.error_boundary.faults == {"end of the run": 1}


def test_a_strict_run_that_raises_at_its_end_leaves_a_closed_hub_behind(
    hub: NissaHub, memory: MemoryBackend, run: Listening
) -> None:
    run.closing = TransitionError("refused")

    with pytest.raises(TransitionError):
        hub.close()
    assert hub.closed
    assert hub.close()
    assert memory.events


def test_a_backend_that_cannot_close_is_counted_and_the_end_is_in_time(hub: NissaHub) -> None:
    hub.add_backend(Raising(SystemExit(1)))

    assert hub.close(5)
    assert hub.error_boundary.faults == {"close of backend 'raising'": 1}


def test_the_callback_for_a_producer_says_what_its_events_leave_unsaid(hub: NissaHub, memory: MemoryBackend) -> None:
    callback = hub.emitter(percent=True, env_id=0)
    callback({"event_type": "EPOCH_COMPLETED", "data": {"val_accuracy": 71.0}})
    callback({"event_type": "EPOCH_COMPLETED", "env_id": 3, "data": {"val_accuracy": 50}})
    callback("nonsense")
    hub.flush()

    assert [(event.env_id, event.data) for event in memory.events] == [
        ("0", {"val_accuracy": 0.71}),
        ("3", {"val_accuracy": 0.5}),
    ]
    assert hub.rejections == {"no_event_type": 1}


def test_a_hub_closed_while_a_backend_is_being_added_waits_for_it_and_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, late = NissaHub(), MemoryBackend()
    about_to_start, go = threading.Event(), threading.Event()
    start = threading.Thread.start

    def held_up(thread: threading.Thread) -> None:
        if thread.name == "nissa-late":
            about_to_start.set()
            assert go.wait(30)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", held_up)
    adding = threading.Thread(target=hub.add_backend, args=(late, "late"))
    adding.start()
    assert about_to_start.wait(30)
    hub.emit(TelemetryEvent("MY_EVENT"))  # no lock is held while the thread starts
    assert not hub.close(timeout=0.05)
    go.set()
    assert hub.close(timeout=30)
    adding.join(30)
    assert [event.event_type for event in late.events] == ["MY_EVENT"]


def test_a_backend_whose_thread_cannot_start_is_not_added(hub: NissaHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            hub.add_backend(MemoryBackend(), "refused")
    assert "refused" not in hub.backends
    assert hub.add_backend(MemoryBackend(), "refused") == "refused"
