"""Pause of the garbage collector."""

import gc
from collections.abc import Iterator

import pytest

from nissa import garbage


@pytest.fixture(autouse=True)
def collector_as_before() -> Iterator[None]:
    """Leave the collector as it was."""
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


def test_nothing_is_collected_in_a_pause_and_the_collector_goes_on_after_an_error() -> None:
    gc.enable()
    with pytest.raises(ValueError, match="bad"), garbage.paused():  # noqa: PT012 - what holds inside of the pause
        assert not gc.isenabled()
        raise ValueError("bad")
    assert gc.isenabled()


def test_a_collector_that_was_switched_off_stays_so() -> None:
    gc.disable()
    with garbage.paused():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_a_pause_is_not_followed_by_a_visit_of_all_objects() -> None:
    gc.enable()
    # The collector visits all objects when a quarter of them is new, and 77,000 were created.
    kept = [[number] for number in range(400_000)]
    gc.collect()
    visits: list[int] = []
    watch = lambda phase, info: visits.append(info["generation"]) if phase == "start" else None  # noqa: E731
    gc.callbacks.append(watch)
    try:
        with garbage.paused():
            kept.extend([number] for number in range(200_000))
        kept.extend([number] for number in range(99_000))
    finally:
        gc.callbacks.remove(watch)
    assert visits
    assert 2 not in visits


def test_what_the_application_has_frozen_stays_frozen() -> None:
    gc.enable()
    gc.freeze()
    try:
        with garbage.paused():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
