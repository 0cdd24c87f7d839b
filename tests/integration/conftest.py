"""A small network that trains, for tests of whole runs."""

import pytest

from tests.toys import Toy

__all__ = ["Toy"]


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def another_toy() -> Toy:
    return Toy(seed=1)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a validation or diagnosis wait for the row of its step as long as a busy machine takes, and not 50 ms."""
    monkeypatch.setenv("NISSA_LIMITS__VALIDATION_WAIT_SECONDS", "10")
