import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nissa.events import TelemetryEvent
from nissa.gradients import readback
from nissa.gradients.readback import Readback
from nissa.hub.error_boundary import ErrorBoundary
from nissa.hub.worker import BackendWorker
from nissa.kernels.transfer import Transfer, number, on_host, side_by_side
from tests.support import until


class Busy:
    """An event of a device that has not come to it."""

    def query(self) -> bool:
        return False


class Later(Busy):
    """Is done when it is asked the third time."""

    asked = 0

    def query(self) -> bool:
        self.asked += 1
        return self.asked > 2


def transfer(value: float) -> Transfer:
    return Transfer([torch.tensor([value])])


class Nothing:
    """A backend that receives nothing: the worker only polls."""

    def emit(self, event: object) -> None:
        raise AssertionError(event)


Make = Callable[..., Readback[Any]]


@pytest.fixture
def read() -> Iterator[Make]:
    workers: list[BackendWorker] = []

    def make(deliver: Callable[[Any, Any], None], capacity: int = 8, **options: Any) -> Readback[Any]:
        error_boundary = options.pop("error_boundary", ErrorBoundary())

        def each(rows: list[tuple[Any, Any]]) -> None:
            for note, arrays in rows:
                with error_boundary.guard("delivery"):
                    deliver(note, arrays)

        made: Readback[Any] = Readback(each, capacity=capacity, error_boundary=error_boundary, **options)
        workers.append(
            BackendWorker("rows", Nothing(), capacity=1, reserve=1, error_boundary=error_boundary, source=made)
        )
        workers[-1].start()
        return made

    yield make
    for worker in workers:
        worker.close(5)
        assert worker.join(5)


class Gate:
    """A delivery that is held up."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.notes: list[int] = []

    def __call__(self, note: int, _: Any) -> None:
        self.entered.set()
        self.open.wait(10)
        self.notes.append(note)


def test_a_transfer_on_the_host_is_ready_at_once_and_copies_nothing() -> None:
    tensor = torch.arange(6).reshape(2, 3)
    moved = Transfer([tensor, torch.tensor([0.5])])
    assert moved.ready()
    first, second = moved.arrays(timeout=0)
    assert first.ctypes.data == tensor.data_ptr()
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second.tolist() == [0.5]


def test_what_a_device_sent_leaves_pinned_memory() -> None:
    moved = transfer(0.5)
    moved._events = [Later()]
    (array,) = moved.arrays()
    assert not np.shares_memory(array, moved._hosts[0].numpy())
    assert array.tolist() == [0.5]


def test_a_transfer_of_nothing_is_ready() -> None:
    assert Transfer([]).ready()
    assert Transfer([]).arrays() == []


def test_arrays_wait_for_the_device() -> None:
    moved, event = transfer(1.0), Later()
    moved._events.append(event)
    assert not moved.ready()
    assert moved.arrays(timeout=5)[0].tolist() == [1.0]
    assert event.asked == 3


def test_arrays_give_up_after_the_timeout() -> None:
    moved = transfer(1.0)
    moved._events.append(Busy())
    with pytest.raises(TimeoutError, match="has not finished"):
        moved.arrays(timeout=0.01)


def test_transfers_are_handed_on_in_order_with_their_notes(read: Make) -> None:
    found: list[tuple[int, float]] = []
    reader = read(lambda note, arrays: found.append((note, float(arrays[0][0]))), capacity=100)
    for index in range(50):
        reader.submit(transfer(index / 2), index)
    assert reader.flush(5)
    assert found == [(index, index / 2) for index in range(50)]
    assert reader.dropped == 0


class Polls:
    """Polls a readback by hand, at times of its own, and counts how often it wakes its worker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capacity: int = 100) -> None:
        self.at, self.wakes, self.notes = 1000.0, 0, list[int]()
        monkeypatch.setattr(readback, "monotonic", lambda: self.at)
        self.reader: Readback[int] = Readback(self.deliver, capacity=capacity, error_boundary=ErrorBoundary())
        self.reader.attach(self.wake)

    def deliver(self, rows: list[tuple[int, Any]]) -> None:
        self.notes += [note for note, _ in rows]

    def wake(self) -> None:
        self.wakes += 1

    def poll(self, after: float = 0.0) -> float | None:
        self.at += after
        return self.reader.poll()


def test_rows_wake_a_sleeping_worker_once_and_are_then_read_at_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Polls(monkeypatch)
    assert polls.poll() is None
    for note in range(30):
        polls.reader.submit(transfer(0.0), note, hurry=note % 2 == 0)
    assert polls.wakes == 1
    assert polls.poll() == 0.05
    for note in range(30, 60):
        polls.reader.submit(transfer(0.0), note, hurry=note % 2 == 0)
    assert polls.wakes == 1
    assert polls.poll(0.05) == 0.05
    assert polls.notes == [*range(60)]


def test_after_a_second_without_rows_the_worker_sleeps_until_it_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Polls(monkeypatch)
    polls.reader.submit(transfer(0.0), 1)
    assert polls.poll() == 0.05
    assert polls.poll(0.9) == 0.05
    assert polls.wakes == 1
    assert polls.poll(0.2) is None
    polls.reader.submit(transfer(0.0), 2, hurry=False)
    assert polls.wakes == 2
    assert polls.poll() == 0.05
    assert polls.notes == [1, 2]


def test_half_of_the_places_for_samples_wake_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Polls(monkeypatch, capacity=8)
    polls.reader.submit(transfer(0.0), 0)
    polls.poll()
    for note in range(1, 4):
        polls.reader.submit(transfer(0.0), note)
    assert polls.wakes == 1
    polls.reader.submit(transfer(0.0), 4)
    assert polls.wakes == 2


def test_a_row_that_arrives_while_the_worker_falls_asleep_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Polls(monkeypatch)
    polls.reader.submit(transfer(0.0), 0)
    polls.poll()
    poll_rows = polls.reader._poll_rows

    def late(queued: Any) -> Any:
        found = poll_rows(queued)
        polls.reader.submit(transfer(0.0), 1)  # by another thread, before the worker sleeps
        return found

    with monkeypatch.context() as arriving:
        arriving.setattr(polls.reader, "_poll_rows", late)
        assert polls.poll(2.0) == 0.0
    polls.poll()
    assert polls.notes == [0, 1]


def test_a_device_that_is_behind_is_polled_quickly_only_while_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Polls(monkeypatch)
    moved = transfer(0.0)
    moved._events = [Busy()]
    polls.reader.submit(moved, 1)
    assert polls.poll() == 0.05
    assert polls.poll(5.0) == 0.05
    assert not polls.reader.flush(0.0)
    waits = threading.Event()
    polls.reader._awaited.add(waits)
    assert polls.poll() == pytest.approx(0.0004, abs=0.005)
    polls.reader._awaited.clear()
    assert polls.poll() == 0.05


@pytest.mark.parametrize("capacity", [8, 1000])
def test_a_worker_reads_rows_that_nobody_waits_for(read: Make, capacity: int) -> None:
    notes: list[int] = []
    reader = read(lambda note, _: notes.append(note), capacity=capacity)
    for note in range(200):
        reader.submit(transfer(0.0), note, hurry=False)
    assert until(lambda: len(notes) == 200, "the notes")
    assert reader.dropped == 0


@pytest.mark.parametrize(
    "value",
    [torch.tensor(0.5), torch.tensor([3]), torch.tensor([[0.25]], dtype=torch.float16), torch.tensor(torch.inf)],
    ids=str,
)
def test_a_number_of_the_host_is_read_where_it_is(value: torch.Tensor) -> None:
    assert on_host(value) == float(value)


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(0.5, dtype=torch.bfloat16),
        torch.tensor(0.5, device="meta"),
        torch.tensor(0.5, requires_grad=True),
        torch.tensor([1 + 2j]).conj().imag,
        torch.nn.Parameter(torch.tensor(0.5)),
    ],
    ids=["bfloat16", "meta", "graph", "negated", "subclass"],
)
def test_a_number_that_is_no_plain_array_travels(value: torch.Tensor) -> None:
    assert on_host(value) is None


def test_columns_stand_side_by_side() -> None:
    left, right = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5], [6]])
    assert side_by_side(left, right).tolist() == [[1, 2, 5], [3, 4, 6]]


def test_when_the_queue_is_full_the_oldest_give_way_and_are_counted(read: Make) -> None:
    gate = Gate()
    reader = read(gate, capacity=3)
    reader.submit(transfer(0), 0)
    assert gate.entered.wait(5)
    for index in range(1, 8):
        reader.submit(transfer(index), index)
    assert reader.dropped == 4
    gate.open.set()
    assert reader.flush(5)
    assert gate.notes == [0, 5, 6, 7]


def test_submitting_does_not_wait_for_a_delivery_that_is_stuck(read: Make) -> None:
    gate = Gate()
    reader = read(gate, capacity=1)
    for index in range(1000):
        reader.submit(transfer(index), index)
    assert gate.notes == []
    gate.open.set()


def test_flush_is_false_while_a_delivery_is_stuck_and_true_afterwards(read: Make) -> None:
    gate = Gate()
    reader = read(gate)
    reader.submit(transfer(0), 0)
    assert not reader.flush(0.02)
    gate.open.set()
    assert reader.flush(5)
    assert gate.notes == [0]


def test_close_delivers_what_was_submitted_and_takes_no_more(read: Make) -> None:
    found: list[int] = []
    reader = read(lambda note, _: found.append(note))
    for index in range(5):
        reader.submit(transfer(index), index)
    assert reader.close(5)
    reader.submit(transfer(5), 5)
    assert found == [0, 1, 2, 3, 4]
    assert reader.close(5)
    assert not reader.flush(0.01)


def test_close_is_false_while_a_delivery_is_stuck(read: Make) -> None:
    gate = Gate()
    reader = read(gate)
    reader.submit(transfer(0), 0)
    assert not reader.close(0.02)
    gate.open.set()
    assert reader.close(5)


def test_a_delivery_that_fails_is_contained_and_the_next_ones_arrive(read: Make) -> None:
    found: list[int] = []
    error_boundary = ErrorBoundary()

    def deliver(note: int, _: Any) -> None:
        if note == 1:
            raise ValueError("ours")
        found.append(note)

    reader = read(deliver, error_boundary=error_boundary)
    for index in range(3):
        reader.submit(transfer(index), index)
    assert reader.flush(5)
    assert found == [0, 2]
    assert error_boundary.faults == {"delivery": 1}


def test_a_device_that_hangs_holds_up_its_own_environment_only(read: Make) -> None:
    found: list[str] = []
    reader = read(lambda note, _: found.append(note), environment_of=lambda note: note[0])
    stuck = transfer(0.0)
    stuck._events.append(Busy())
    reader.submit(stuck, "a1")
    reader.submit(transfer(0.0), "a2")
    reader.submit(transfer(0.0), "b1")
    assert reader.wait("b", 5)
    assert found == ["b1"]
    assert not reader.wait("a", 0.02)
    stuck._events.clear()
    assert reader.wait("a", 5)
    assert found == ["b1", "a1", "a2"]


def test_a_worker_delivers_items_while_a_device_hangs() -> None:
    received: list[object] = []

    class Receiver:
        def emit(self, event: object) -> None:
            received.append(event)

    error_boundary = ErrorBoundary()
    reader: Readback[int] = Readback(lambda _: None, capacity=8, error_boundary=error_boundary)
    worker = BackendWorker("run", Receiver(), capacity=9, reserve=9, error_boundary=error_boundary, source=reader)
    worker.start()
    stuck = transfer(0.0)
    stuck._events.append(Busy())
    reader.submit(stuck, 0)
    event = TelemetryEvent("SEED_GERMINATED", seed_id="s")
    worker.put(event)
    assert until(lambda: received == [event], "the event")
    worker.close(5)
    assert worker.join(5)


def test_a_sample_that_was_dropped_while_it_was_on_its_way_is_passed_over(read: Make) -> None:
    found: list[int] = []
    reader = read(lambda note, _: found.append(note), capacity=2)
    stuck = [transfer(0.0) for _ in range(4)]
    for note, each in enumerate(stuck):
        each._events.append(Busy())
        reader.submit(each, note)
    for each in stuck:
        each._events.clear()
    assert until(lambda: reader.flush(0.1), "the rows")
    assert found == [2, 3]
    assert reader.dropped == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0, 0.0),
        (0.0, 0.0),
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        (torch.tensor(0.0), 0.0),
        (torch.tensor([0.5]), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(3), 3.0),
        (torch.tensor(0.5, requires_grad=True), 0.5),
    ],
    ids=repr,
)
def test_a_number_is_what_the_caller_gave(value: object, expected: float | None) -> None:
    found = number(value, timeout=1)
    assert found == expected
    assert found is None or type(found) is float


def test_a_number_may_be_nan() -> None:
    assert np.isnan(number(torch.tensor(float("nan")), timeout=1) or 0.0)
    assert np.isnan(number(float("nan"), timeout=1) or 0.0)


def test_what_is_no_number_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        number("low", timeout=1)


@pytest.mark.parametrize("several", [torch.tensor([1.0, 2.0]), torch.empty(0)], ids=["two", "none"])
def test_of_several_numbers_none_is_picked(several: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="one number"):
        number(several, timeout=1)


def test_a_number_that_does_not_come_in_time_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transfer, "ready", lambda _: False)
    assert number(torch.tensor(1.0), timeout=0.01) is None
