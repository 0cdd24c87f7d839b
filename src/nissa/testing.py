"""Helpers for tests of training code; pytest loads them automatically.

Fixtures: ``nissa_memory`` is a `MemoryBackend` on a fresh hub; ``nissa_clock`` is a `FakeClock`.
"""

import importlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nissa.backends.memory import MemoryBackend


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
