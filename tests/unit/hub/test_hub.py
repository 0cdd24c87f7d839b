import threading
from typing import Any

import pytest

from nissa import ConfigurationError, MemoryBackend, NissaHub, TelemetryEvent
from nissa.hub.backend import Backend
from nissa.hub.hub import Delivery
from tests.support import until
from tests.unit.hub.conftest import DROPPABLE, LIFECYCLE, EventsOnly, Stuck, counts, step


def test_a_backend_is_called_by_the_name_that_is_given(hub: NissaHub) -> None:
    assert hub.add_backend(EventsOnly(), "mine") == "mine"
    assert hub.backends == ("mine",)


def test_a_backend_is_called_by_its_own_name_or_else_by_that_of_its_class(hub: NissaHub) -> None:
    assert hub.add_backend(MemoryBackend()) == "memory"
    assert hub.add_backend(EventsOnly()) == "eventsonly"


def test_a_name_that_is_taken_is_an_error_that_says_what_to_do(hub: NissaHub) -> None:
    hub.add_backend(EventsOnly(), "mine")

    with pytest.raises(ConfigurationError, match="A backend named 'mine' exists already; pass another name="):
        hub.add_backend(EventsOnly(), "mine")


@pytest.mark.parametrize("nothing", [None, object(), type("Odd", (), {"emit": "text"})()])
def test_what_has_no_emit_is_no_backend(hub: NissaHub, nothing: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a backend: add a method emit"):
        hub.add_backend(nothing)
    assert hub.backends == ()


def test_a_closed_hub_takes_no_backend(hub: NissaHub) -> None:
    hub.close()

    with pytest.raises(ConfigurationError, match=r"closed; nissa\.reset_hub"):
        hub.add_backend(EventsOnly())


def test_every_backend_gets_the_same_event(hub: NissaHub, memory: MemoryBackend) -> None:
    other = EventsOnly()
    hub.add_backend(other)
    hub.emit(TelemetryEvent(LIFECYCLE, epoch=0))
    assert hub.flush()

    assert memory.events[0] is other.events[0]
    assert memory.events[0].epoch == 0


def test_events_from_before_a_backend_are_not_replayed_to_it(hub: NissaHub) -> None:
    hub.emit(TelemetryEvent(LIFECYCLE, epoch=1))
    late = EventsOnly()
    hub.add_backend(late)
    hub.emit(TelemetryEvent(LIFECYCLE, epoch=2))
    hub.flush()

    assert [event.epoch for event in late.events] == [2]


def test_a_backend_sees_the_event_as_it_was_when_it_was_emitted(hub: NissaHub) -> None:
    stuck = Stuck()
    hub.add_backend(stuck)
    event = TelemetryEvent("MY_EVENT", data={"number": 1, "nested": {"list": [1]}})
    hub.emit(event)
    event.data["number"] = 2
    event.data["nested"]["list"].append(2)
    event.data["more"] = True
    stuck.go.set()
    hub.flush()

    assert stuck.events[0].data == {"number": 1, "nested": {"list": [1]}}


def test_measurements_reach_only_backends_that_record(hub: NissaHub, memory: MemoryBackend) -> None:
    events_only = EventsOnly()
    hub.add_backend(events_only)
    measurement = step()
    hub.record(measurement)
    hub.flush()

    assert memory.measurements == [measurement]
    assert counts(hub, backend="memory") == {("StepMeasured", "delivered"): 1}
    assert counts(hub, backend="eventsonly") == {}


def test_an_attribute_record_that_cannot_be_called_wants_no_measurements(hub: NissaHub) -> None:
    backend = EventsOnly()
    backend.record = []  # type: ignore[attr-defined]
    hub.add_backend(backend)
    hub.record(step())
    hub.flush()

    assert hub.deliveries() == []


def test_events_and_measurements_keep_their_order(hub: NissaHub) -> None:
    seen: list[str] = []

    class Both:
        def emit(self, event: TelemetryEvent) -> None:
            seen.append(f"event {event.epoch}")

        def record(self, measurement: Any) -> None:
            seen.append(f"step {measurement.step}")

    hub.add_backend(Both())
    for number in range(200):
        hub.record(step(number))
        hub.emit(TelemetryEvent(LIFECYCLE, epoch=number))
    hub.flush()

    assert seen == [text for number in range(200) for text in (f"step {number}", f"event {number}")]


def test_each_thread_s_events_keep_their_order_and_all_backends_see_one_order(hub: NissaHub) -> None:
    backends = [MemoryBackend(), MemoryBackend()]
    for number, backend in enumerate(backends):
        hub.add_backend(backend, f"memory {number}")

    def produce(env: int) -> None:
        for epoch in range(300):
            hub.emit(TelemetryEvent(DROPPABLE if epoch % 3 else LIFECYCLE, env_id=str(env), epoch=epoch))

    threads = [threading.Thread(target=produce, args=(env,)) for env in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.flush(10)

    for env in range(4):
        assert [event.epoch for event in backends[0].events if event.env_id == str(env)] == list(range(300))
    assert [event.event_id for event in backends[0].events] == [event.event_id for event in backends[1].events]


def test_removing_a_backend_delivers_what_is_queued_and_closes_it(hub: NissaHub) -> None:
    backend = Stuck()
    hub.add_backend(backend)
    for epoch in range(5):
        hub.emit(TelemetryEvent(LIFECYCLE, epoch=epoch))
    threading.Timer(0.05, backend.go.set).start()

    assert hub.remove_backend("stuck")
    assert [event.epoch for event in backend.events] == [0, 1, 2, 3, 4]
    assert len(backend.ended) == 1
    assert hub.backends == ()


def test_a_removed_backend_gets_nothing_more_and_its_counts_stay(hub: NissaHub, memory: MemoryBackend) -> None:
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.remove_backend("memory")
    hub.emit(TelemetryEvent(LIFECYCLE))

    assert len(memory.events) == 1
    assert counts(hub, backend="memory") == {(LIFECYCLE, "delivered"): 1}


def test_a_name_is_free_again_after_its_backend_left_and_counts_add_up(hub: NissaHub) -> None:
    for _ in range(2):
        hub.add_backend(MemoryBackend())
        hub.emit(TelemetryEvent(LIFECYCLE))
        hub.remove_backend("memory")

    assert counts(hub, backend="memory") == {(LIFECYCLE, "delivered"): 2}


def test_a_backend_that_does_not_leave_in_time_goes_on_being_counted(hub: NissaHub, stuck: Stuck) -> None:
    hub.emit(TelemetryEvent(LIFECYCLE))

    assert not hub.remove_backend("stuck", timeout=0.01)
    assert counts(hub, backend="stuck") == {}
    stuck.go.set()
    until(lambda: stuck.ended, "the end of the backend")
    assert counts(hub, backend="stuck") == {(LIFECYCLE, "delivered"): 2}


def test_removing_what_is_not_there_names_what_is(hub: NissaHub, memory: MemoryBackend) -> None:
    assert isinstance(memory, Backend)
    with pytest.raises(ConfigurationError, match="No backend is named 'file'; existing ones: memory"):
        hub.remove_backend("file")


def test_deliveries_are_sorted_and_say_backend_kind_and_outcome(hub: NissaHub, memory: MemoryBackend) -> None:
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.emit(TelemetryEvent("MY_EVENT"))
    hub.emit({"nothing": 1})
    hub.flush()

    assert memory.events
    assert hub.deliveries() == [
        Delivery("", "no_event_type", "rejected", 1),
        Delivery("memory", LIFECYCLE, "delivered", 1),
        Delivery("memory", "MY_EVENT", "delivered", 1),
    ]


def test_queue_sizes_say_how_much_waits_at_each_backend(hub: NissaHub, stuck: Stuck) -> None:
    hub.add_backend(MemoryBackend())
    for _ in range(3):
        hub.emit(TelemetryEvent(DROPPABLE))
    until(lambda: hub.queue_sizes()["memory"] == 0, "the idle backend")

    assert hub.queue_sizes() == {"stuck": 3, "memory": 0}
    hub.flush(0.01)  # a request to flush is no item
    assert hub.queue_sizes()["stuck"] == 3
    stuck.go.set()
    assert hub.flush()
    assert hub.queue_sizes() == {"stuck": 0, "memory": 0}


def test_a_hub_is_healthy_until_something_is_rejected(hub: NissaHub, memory: MemoryBackend) -> None:
    hub.emit(TelemetryEvent(LIFECYCLE))
    hub.flush()
    assert memory.events
    assert hub.healthy
    hub.emit(5)
    assert not hub.healthy


def test_a_hub_is_as_healthy_as_its_backends_also_after_they_were_removed(hub: NissaHub) -> None:
    class Exporting(MemoryBackend):
        healthy = True

    def health() -> bool:
        return hub.healthy

    exporting = Exporting()
    hub.add_backend(exporting, "exporting")
    assert health()
    exporting.healthy = False
    assert not health()
    hub.remove_backend("exporting")
    assert not health()


def test_a_rejection_is_logged_once_per_reason(hub: NissaHub, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        hub.emit(5)
    hub.emit(TelemetryEvent("SEED_CULLED"))

    assert hub.rejections == {"no_event_type": 3, "no_seed_id": 1}
    assert len(caplog.records) == 2


def test_sizes_apply_to_backends_that_are_added_after_a_resize(hub: NissaHub) -> None:
    hub.resize(queue_size=2, lifecycle_queue_size=3)
    backend = Stuck()
    hub.add_backend(backend)
    hub.emit(TelemetryEvent(LIFECYCLE))
    backend.entered.wait(10)
    for _ in range(5):
        hub.emit(TelemetryEvent(DROPPABLE))
        hub.emit(TelemetryEvent(LIFECYCLE))
    found = counts(hub, backend="stuck")
    backend.go.set()

    assert found == {(DROPPABLE, "dropped"): 3, (LIFECYCLE, "dropped"): 2}
