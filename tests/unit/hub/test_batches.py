"""Backends that take the queued events together."""

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import pytest

from nissa import FileBackend, MemoryBackend, NissaHub, TelemetryEvent
from tests.unit.hub.conftest import LIFECYCLE, counts, step


class Batching:
    """Notes each call; waits in the first one until it is let go."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.calls: list[Any] = []
        self.bad: set[int] = set()

    def _note(self, call: Any, events: Sequence[TelemetryEvent]) -> None:
        self.entered.set()
        self.go.wait(30)
        if any(event.epoch in self.bad for event in events):
            raise OSError("bad")
        self.calls.append(call)

    def emit(self, event: TelemetryEvent) -> None:
        self._note(event.epoch, [event])

    def emit_batch(self, events: Sequence[TelemetryEvent]) -> None:
        self._note([event.epoch for event in events], events)

    def record(self, measurement: Any) -> None:
        self.calls.append(f"step {measurement.step}")

    def flush(self, _timeout: float) -> bool:
        self.calls.append("flush")
        return True

    def close(self, _timeout: float) -> None:
        self.calls.append("close")


@pytest.fixture
def batching(hub: NissaHub) -> Batching:
    """A backend that is inside its first call."""
    backend = Batching()
    hub.add_backend(backend)
    hub.emit(TelemetryEvent(LIFECYCLE, epoch=-1))
    assert backend.entered.wait(10)
    return backend


def _emit(hub: NissaHub, *epochs: int) -> None:
    for epoch in epochs:
        hub.emit(TelemetryEvent("OWN" if epoch % 2 else LIFECYCLE, epoch=epoch))


def test_what_is_queued_comes_together_and_other_items_in_between(hub: NissaHub, batching: Batching) -> None:
    _emit(hub, 0, 1, 2)
    hub.record(step(5))
    _emit(hub, 3, 4)
    batching.go.set()
    assert hub.flush()
    _emit(hub, 6)
    assert hub.close()
    assert batching.calls == [[-1], [0, 1, 2], "step 5", [3, 4], "flush", [6], "close"]
    assert counts(hub, backend="batching") == {
        ("EPOCH_COMPLETED", "delivered"): 5,
        ("OWN", "delivered"): 2,
        ("StepMeasured", "delivered"): 1,
    }


def test_a_batch_is_bounded(hub: NissaHub, batching: Batching) -> None:
    _emit(hub, *range(0, 5_000, 2))
    batching.go.set()
    assert hub.flush()
    sizes = [len(call) for call in batching.calls if isinstance(call, list)]
    assert sizes == [1, 1_000, 1_000, 500]


@pytest.mark.faults
def test_of_a_batch_that_fails_only_the_events_that_fail_alone_are_lost(hub: NissaHub, batching: Batching) -> None:
    batching.bad = {2}
    _emit(hub, 0, 2, 4)
    batching.go.set()
    assert hub.flush()
    assert batching.calls == [[-1], 0, 4, "flush"]
    assert counts(hub, backend="batching") == {("EPOCH_COMPLETED", "delivered"): 3, ("EPOCH_COMPLETED", "failed"): 1}
    assert hub.error_boundary.faults == {"backend 'batching'": 1}


class OnlyEmit(MemoryBackend):
    """Overrides one of the two methods."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int | None] = []

    def emit(self, event: TelemetryEvent) -> None:
        self.epochs.append(event.epoch)


class Patched(MemoryBackend):
    """Replaces the method of one object."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int | None] = []
        self.emit = lambda event: self.epochs.append(event.epoch)  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", [OnlyEmit, Patched])
def test_a_method_emit_that_replaces_another_is_not_passed_by(
    hub: NissaHub, kind: type[OnlyEmit] | type[Patched]
) -> None:
    backend = kind()
    hub.add_backend(backend)
    _emit(hub, *range(50))
    assert hub.flush()
    assert backend.epochs == [*range(50)]
    assert backend.events == []


def test_memory_and_file_take_batches_and_lose_none(hub: NissaHub, tmp_path: Any) -> None:
    memory, file = MemoryBackend(), FileBackend(tmp_path / "events.jsonl")
    hub.add_backend(memory)
    hub.add_backend(file)
    _emit(hub, *range(3_000))
    assert hub.flush(30)
    assert [event.epoch for event in memory.events] == [*range(3_000)]
    alone = FileBackend(tmp_path / "alone.jsonl")
    for event in memory.events:
        alone.emit(event)
    assert alone.path.read_bytes() == file.path.read_bytes()


class Polled:
    """Source that is due every tenth of a second, or when it wakes the worker."""

    def __init__(self) -> None:
        self.polls = 0
        self.wake: Callable[[], None] = lambda: None
        self.polled = threading.Event()

    def attach(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def poll(self) -> float | None:
        self.polls += 1
        self.polled.set()
        return 0.1


def test_a_source_is_polled_when_it_is_due_and_not_between_any_two_items(hub: NissaHub) -> None:
    source, backend = Polled(), MemoryBackend()
    hub.add_backend(backend, source=source)
    began = monotonic()
    for number in range(5_000):
        hub.record(step(number))
    assert hub.flush(30)
    seconds = monotonic() - began
    assert len(backend.measurements) == 5_000
    assert source.polls <= 2 + seconds / 0.1


def test_a_source_that_wakes_its_worker_is_polled_before_the_queued_items(hub: NissaHub) -> None:
    source, order = Polled(), list[str]()
    entered, go = threading.Event(), threading.Event()

    class Slow:
        def emit(self, event: TelemetryEvent) -> None:
            entered.set()
            go.wait(30)
            order.append(f"event {event.epoch} after {source.polls - before} polls")

    hub.add_backend(Slow(), source=source)
    assert source.polled.wait(30)
    before = source.polls
    for epoch in range(2):
        hub.emit(TelemetryEvent(LIFECYCLE, epoch=epoch))
    assert entered.wait(30)
    before = source.polls
    source.wake()
    go.set()
    assert hub.flush(30)
    assert order == ["event 0 after 0 polls", "event 1 after 1 polls"]
