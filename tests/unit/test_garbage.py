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
