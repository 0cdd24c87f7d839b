"""Helpers for tests of training code, loaded by pytest by itself.

Fixtures: ``nissa_memory`` is a `MemoryBackend` on a fresh hub; ``nissa_clock`` is a `FakeClock`.
"""

import importlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nissa.backends.memory import MemoryBackend


class FakeClock:
    """A clock that moves only when told to, nanoseconds since the Unix epoch.

    Example:
        >>> clock = FakeClock(start=1_000)
        >>> clock.advance(2)
        >>> clock()
        2000001000
    """

    def __init__(self, start: int = 1_700_000_000_000_000_000) -> None:
        self._now = start

    def __call__(self) -> int:
        """Return the present."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on."""
        self._now += round(seconds * 1e9)


@pytest.fixture
def nissa_clock() -> FakeClock:
    """A clock that moves only when told to."""
    return FakeClock()


@pytest.fixture
def nissa_memory() -> "Iterator[MemoryBackend]":
    """A backend that keeps everything, on a hub of its own; flush with ``nissa.get_hub().flush()`` before looking."""
    nissa = importlib.import_module("nissa")
    backend: MemoryBackend = nissa.MemoryBackend()
    nissa.reset_hub().add_backend(backend)
    yield backend
    nissa.reset_hub()
