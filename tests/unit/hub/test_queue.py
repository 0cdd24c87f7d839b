import itertools
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nissa.hub.queue import BoundedQueue
from tests.support import until

Item = tuple[int, int, bool]
"""Producer, number, whether it must be kept."""


@pytest.fixture
def eager_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Model:
    """The specification: a list, from which the oldest of a full kind goes."""

    def __init__(self, capacity: int, reserve: int) -> None:
        self.items: list[tuple[int, bool | None]] = []
        self.limits = {False: capacity, True: reserve}

    def put(self, item: int, keep: bool | None) -> int | None:
        same = [entry for entry in self.items if entry[1] is keep]
        dropped = same[0] if keep is not None and len(same) >= self.limits[keep] else None
        if dropped is not None:
            self.items.remove(dropped)
        self.items.append((item, keep))
        return None if dropped is None else dropped[0]


def drain(bounded: BoundedQueue[int]) -> list[int]:
    found = []
    while True:
        try:
            found.append(bounded.get(timeout=0.001))
        except queue.Empty:
            return found


@given(
    capacity=st.integers(1, 4),
    reserve=st.integers(1, 4),
    script=st.lists(st.sampled_from(["get", "drop", "keep", "request"]), max_size=40),
)
@settings(deadline=None)
def test_it_behaves_like_a_list_from_which_the_oldest_of_a_full_kind_goes(
    capacity: int, reserve: int, script: list[str]
) -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=capacity, reserve=reserve)
    model = Model(capacity, reserve)
    kinds = {"drop": False, "keep": True, "request": None}
    for number, action in enumerate(script):
        if action == "get":
            if model.items:
                assert bounded.get(timeout=1) == model.items.pop(0)[0]
            continue
        keep = kinds[action]
        expected = model.put(number, keep)
        if keep is None:
            bounded.request(number)
        else:
            assert bounded.put(number, keep=keep) == expected
        assert len(bounded) == sum(kind is not None for _, kind in model.items)
    assert drain(bounded) == [item for item, _ in model.items]


def test_items_of_all_lanes_come_out_in_the_order_in_which_they_went_in() -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=10, reserve=10)
    for number in range(12):
        if number % 3 == 2:
            bounded.request(number)
        else:
            bounded.put(number, keep=number % 3 == 0)

    assert drain(bounded) == list(range(12))


def test_a_flood_of_droppable_items_leaves_the_kept_ones_alone() -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=2, reserve=3)
    for number in (-3, -2, -1):
        assert bounded.put(number, keep=True) is None

    dropped = [bounded.put(number, keep=False) for number in range(5)]

    assert dropped == [None, None, 0, 1, 2]
    assert drain(bounded) == [-3, -2, -1, 3, 4]


def test_a_request_neither_gives_way_nor_makes_another_item_give_way() -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=1, reserve=1)
    bounded.put(1, keep=True)
    bounded.request(2)
    bounded.request(3)

    assert bounded.put(4, keep=True) == 1
    assert drain(bounded) == [2, 3, 4]


def test_requests_are_not_counted_as_waiting_items() -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=1, reserve=1)
    bounded.request(1)
    bounded.put(2, keep=False)

    assert len(bounded) == 1


def test_getting_from_an_empty_mailbox_gives_up_after_the_timeout() -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=1, reserve=1)

    with pytest.raises(queue.Empty):
        bounded.get(timeout=0.01)


def test_a_waiting_reader_is_woken_by_an_item() -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=1, reserve=1)
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.append(bounded.get(timeout=10)))
    reader.start()
    bounded.put(7, keep=False)
    reader.join(10)

    assert found == [7]


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("producers", [1, 3])
def test_concurrent_producers_lose_nothing_and_each_keeps_its_order(producers: int) -> None:
    count = 4_000
    bounded: BoundedQueue[Item] = BoundedQueue(capacity=64, reserve=producers * count)
    dropped: list[list[Item]] = [[] for _ in range(producers)]

    def produce(producer: int) -> None:
        for number in range(count):
            keep = (7 * number + producer) % 5 < 2
            gone = bounded.put((producer, number, keep), keep=keep)
            if gone is not None:
                dropped[producer].append(gone)

    threads = [threading.Thread(target=produce, args=(producer,)) for producer in range(producers)]
    for thread in threads:
        thread.start()
    received: list[Item] = []
    while any(thread.is_alive() for thread in threads) or len(bounded):
        try:
            received.append(bounded.get(timeout=0.01))
        except queue.Empty:
            continue

    gone_all = list(itertools.chain(*dropped))
    assert not [item for item in gone_all if item[2]]
    assert len(received) + len(gone_all) == producers * count
    assert len({*received, *gone_all}) == producers * count
    for producer in range(producers):
        numbers = [number for who, number, _ in received if who == producer]
        assert numbers == sorted(numbers)


@pytest.mark.usefixtures("eager_switching")
def test_no_wakeup_is_ever_lost_between_two_threads_that_take_turns() -> None:
    there: BoundedQueue[int] = BoundedQueue(capacity=1, reserve=1)
    back: BoundedQueue[int] = BoundedQueue(capacity=1, reserve=1)

    def answer() -> None:
        for _ in range(3_000):
            back.put(there.get(timeout=10), keep=True)

    thread = threading.Thread(target=answer)
    thread.start()
    for number in range(3_000):
        there.put(number, keep=bool(number % 2))
        assert back.get(timeout=10) == number
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("look", [1, 2])
def test_an_earlier_item_that_came_to_a_lane_found_empty_is_still_taken_first(look: int) -> None:
    bounded: BoundedQueue[str] = BoundedQueue(capacity=4, reserve=4)

    class Racing(deque[tuple[int, str]]):
        """Lets a producer put into both lanes just after the reader found the first one empty, at one of its looks."""

        looks = 0

        def __bool__(self) -> bool:
            self.looks += 1
            if self.looks == look:
                raced.append(True)
                bounded.put("first", keep=False)
                bounded.put("second", keep=True)
                return False
            return len(self) > 0

    raced: list[bool] = []
    bounded._droppable = Racing()

    assert [bounded.get(timeout=1), bounded.get(timeout=1)] == ["first", "second"]
    assert raced


def test_a_producer_that_is_torn_out_of_put_leaves_a_mailbox_that_still_wakes_its_reader() -> None:
    class Torn(queue.SimpleQueue[None]):
        def put(self, item: None, block: bool = True, timeout: float | None = None) -> None:
            if not torn:
                torn.append(True)
                raise KeyboardInterrupt
            super().put(item, block, timeout)

    torn: list[bool] = []
    bounded: BoundedQueue[int] = BoundedQueue(capacity=4, reserve=4)
    bounded._wakeups = Torn()
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.extend(bounded.get(timeout=10) for _ in range(2)))

    with pytest.raises(KeyboardInterrupt):
        bounded.put(1, keep=True)
    # The reader sees the first item even so; what must not happen is that it sleeps through the second.
    reader.start()
    until(lambda: found, "the first item")
    bounded.put(2, keep=True)
    reader.join(5)

    assert found == [1, 2]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer")
def test_a_signal_handler_may_put_while_its_thread_is_putting() -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=100_000, reserve=100_000)
    from_handler = itertools.count(-1, -1)
    handled: list[int] = []

    def handler(_signal: int, _frame: FrameType | None) -> None:
        number = next(from_handler)
        handled.append(number)
        bounded.put(number, keep=True)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for number in range(30_000):
            bounded.put(number, keep=bool(number % 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    received = drain(bounded)
    assert [number for number in received if number >= 0] == list(range(30_000))
    # Signals interrupt each other, so that a later one may be put before an earlier one.
    assert sorted((number for number in received if number < 0), reverse=True) == sorted(handled, reverse=True)
    assert handled


def test_items_that_follow_another_do_not_wake_the_reader_that_looks_again_by_itself() -> None:
    class Counted(queue.SimpleQueue[None]):
        woken = 0

        def put(self, item: None, block: bool = True, timeout: float | None = None) -> None:
            self.woken += 1
            super().put(item, block, timeout)

    bounded: BoundedQueue[int] = BoundedQueue(capacity=1_000, reserve=1, linger=1.0)
    bounded._wakeups = wakeups = Counted()
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.extend(bounded.get(timeout=10) for _ in range(101)))
    reader.start()
    bounded.put(0, keep=False)
    until(lambda: bounded._lingering and wakeups.empty(), "the reader to wait for more")
    woken = wakeups.woken
    for number in range(1, 101):
        bounded.put(number, keep=False)
    assert wakeups.woken == woken
    reader.join(10)
    assert found == [*range(101)]


@pytest.mark.parametrize("call", ["request", "wake"])
def test_a_request_and_a_wake_do_not_wait_for_the_reader_that_waits_for_more(call: str) -> None:
    bounded: BoundedQueue[int] = BoundedQueue(capacity=4, reserve=4, linger=60)
    found: list[int | str] = []

    def read() -> None:
        for _ in range(2):
            try:
                found.append(bounded.get(timeout=60))
            except queue.Empty:
                found.append("woken")

    reader = threading.Thread(target=read)
    reader.start()
    bounded.put(1, keep=True)
    until(lambda: bounded._lingering, "the reader to wait for more")
    bounded.request(2) if call == "request" else bounded.wake()
    reader.join(10)
    assert found == [1, 2 if call == "request" else "woken"]
