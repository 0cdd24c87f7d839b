import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.diagnostics.loss_tracker import Beginning, LossTracker, MedianWindow

LOSSES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def begun(entries: list[float | None], length: int) -> Beginning:
    """Return the beginning of some losses, None where one was lost."""
    beginning = Beginning(length)
    for each in entries:
        beginning.lose(1) if each is None else beginning.feed(each)
    return beginning


@given(LOSSES, st.integers(2, 12))
def test_a_complete_beginning_is_the_median_of_the_first_losses(losses: list[float], length: int) -> None:
    beginning = begun([*losses], length)
    assert beginning.start == losses[0]
    assert beginning.level == (median(losses[:length]) if len(losses) >= length else None)
    assert beginning.over == (len(losses) >= length)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=12, max_size=12))
def test_a_beginning_of_which_some_was_lost_is_unknown_or_no_lower(entries: list[tuple[float, bool]]) -> None:
    lossy = begun([loss if kept else None for loss, kept in entries], 10)
    level = begun([loss for loss, _ in entries], 10).level
    kept = sum(kept for _, kept in entries[:10])
    assert lossy.unknown == (kept <= 5)
    assert (lossy.level is None) == lossy.unknown
    assert level is not None
    assert lossy.level is None or lossy.level >= level


def test_a_later_loss_is_not_the_first() -> None:
    assert begun([None, 2.0, 1.0], 2).start is None
    assert begun([2.0, None, 1.0], 2).start == 2.0


def test_a_change_across_a_loss_that_was_lost_is_no_jump() -> None:
    tracker = LossTracker(2)
    for loss in range(10):
        tracker.feed(float(loss))
    tracker.lose(1)
    tracker.feed(1000.0)
    assert tracker.jump == 1.0
    assert tracker.seen == 12


def test_a_window_of_which_too_much_was_lost_has_no_level() -> None:
    tracker = LossTracker(10)
    for loss in range(30):
        tracker.feed(float(loss))
    assert tracker.smooth == 22.0
    tracker.lose(5)
    tracker.feed(30.0)
    assert tracker.smooth == median([20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30][1:])
    tracker.lose(1)
    tracker.feed(31.0)
    assert math.isnan(tracker.smooth)
    assert tracker.best == 4.5


@pytest.mark.parametrize("missed", [15, 10**9])
def test_a_long_loss_empties_the_windows_and_costs_no_memory(missed: int) -> None:
    tracker = LossTracker(2)
    tracker.feed(1.0)
    tracker.feed(2.0)
    tracker.lose(missed)
    tracker.feed(3.0)
    assert math.isnan(tracker.smooth)
    assert math.isnan(tracker.jump)


@given(
    st.lists(st.none() | st.sampled_from([0.0, -0.0, 1.0, 2.5]) | st.floats(-1e300, 1e300), max_size=60),
    st.integers(1, 20),
)
def test_the_median_of_a_window_is_that_of_its_known_values(values: list[float | None], length: int) -> None:
    window = MedianWindow(length)
    for number, value in enumerate(values, 1):
        window.add(value)
        places = values[max(0, number - length) : number]
        known = [each for each in places if each is not None]
        if known and 3 * len(known) >= 2 * len(places):
            assert window.median() == median(known)
        else:
            assert math.isnan(window.median())
