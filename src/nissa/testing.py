"""Helpers for tests of training code; pytest loads them automatically.

Fixtures: ``nissa_memory`` is a `MemoryBackend` on a fresh hub; ``nissa_clock`` is a `FakeClock`.

A run that a test has started and left open is ended after the test, with a warning, so that the next test can start one.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from nissa.backends.memory import MemoryBackend
    from nissa.run.run import Run

_LEFT_OPEN: "Final[pytest.StashKey[Run]]" = pytest.StashKey()
"""Run that was started by the body of a test and was still active at its end."""


class FakeClock:
    """Clock that moves only by `advance`, in nanoseconds since the Unix epoch.

    Example:
        >>> clock = FakeClock(start=1_000)
        >>> clock.advance(2)
        >>> clock()
        2000001000
    """

    def __init__(self, start: int = 1_700_000_000_000_000_000) -> None:
        self._now = start

    def __call__(self) -> int:
        """Return the current time of the clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += round(seconds * 1e9)


@pytest.fixture
def nissa_clock() -> FakeClock:
    """Clock that moves only by ``advance``."""
    return FakeClock()


@pytest.fixture
def nissa_memory() -> "Iterator[MemoryBackend]":
    """Backend that stores everything, on a fresh hub; call ``nissa.get_hub().flush()`` before reading it."""
    nissa = importlib.import_module("nissa")
    backend: MemoryBackend = nissa.MemoryBackend()
    nissa.reset_hub().add_backend(backend)
    yield backend
    nissa.reset_hub()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> "Generator[None, object, object]":
    """Find the run that the body of a test leaves open. One that a fixture has started belongs to the fixture."""
    before = _active_run()
    try:
        return (yield)
    finally:
        if (run := _active_run()) is not None and run is not before:
            item.stash[_LEFT_OPEN] = run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> "Generator[None, object, object]":
    """End the run that a test has left open, unless a fixture has ended it."""
    try:
        return (yield)
    finally:
        run = item.stash.get(_LEFT_OPEN, None)
        if run is not None and not run.closed:
            run.close()
            item.warn(
                pytest.PytestWarning(
                    f"{item.nodeid} has left the run {run.run_id} open; it is ended now. Start it with "
                    "`with nissa.start(...) as run:`, or call run.close() in the test."
                )
            )


def _active_run() -> "Run | None":
    # A test that has not started a run must not wait for the import of torch.
    return sys.modules["nissa"].current_run() if "nissa.run.run" in sys.modules else None
