"""A thread's timer counts what runs inside, once, and nothing of other threads."""

import threading

import pytest

from nissa.hub.stopwatch import Stopwatch, Timer


class Ticks:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Ticks:
    return Ticks()


@pytest.fixture
def timer(clock: Ticks) -> Timer:
    return Timer(clock)


def test_what_is_inside_counts_and_what_is_outside_does_not(clock: Ticks, timer: Timer) -> None:
    for _ in range(2):
        clock.now += 100
        with timer:
            clock.now += 7
    assert timer.spent == 14


def test_a_block_in_a_block_counts_once(clock: Ticks, timer: Timer) -> None:
    with timer, timer:
        clock.now += 7
    assert timer.spent == 7


def test_an_exception_ends_a_block(clock: Ticks, timer: Timer) -> None:
    def fail() -> None:
        with timer:
            clock.now += 7
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    clock.now += 100
    assert timer.spent == 7


def test_a_pause_does_not_count_however_deep(clock: Ticks, timer: Timer) -> None:
    with timer, timer:
        clock.now += 1
        with timer.pause, timer.pause:
            clock.now += 100
            with timer:  # what is ours in the caller's own code
                clock.now += 2
            clock.now += 100
        clock.now += 4
    assert timer.spent == 7


def test_a_pause_of_nothing_is_nothing(clock: Ticks, timer: Timer) -> None:
    with timer.pause:
        clock.now += 100
    assert timer.spent == 0


def test_the_block_under_way_counts_up_to_now(clock: Ticks, timer: Timer) -> None:
    with timer:
        clock.now += 7
        assert (timer.spent, timer.until(clock.now)) == (0, 7)
    clock.now += 5
    assert timer.until(clock.now) == 7


def test_each_thread_has_a_timer_of_its_own() -> None:
    stopwatch = Stopwatch()
    others: list[Timer] = []
    thread = threading.Thread(target=lambda: others.append(stopwatch.own))
    thread.start()
    thread.join()
    assert stopwatch.own is stopwatch.own
    assert others[0] is not stopwatch.own
