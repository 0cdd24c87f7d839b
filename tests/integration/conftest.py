"""A small network that trains, for tests of whole runs."""

from collections.abc import Callable

import pytest
import torch

from nissa import Environment
from tests.toys import Toy

__all__ = ["Toy"]

Step = Callable[[Environment], torch.Tensor]


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def another_toy() -> Toy:
    return Toy(seed=1)
