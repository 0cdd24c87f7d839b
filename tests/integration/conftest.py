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
