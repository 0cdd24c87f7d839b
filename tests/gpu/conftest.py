"""These tests need a CUDA device; without one each is skipped by its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.toys import small_network
from tests.unit.gradients.conftest import lab, make_lab

__all__ = ["lab", "make_lab"]

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is in this folder where there is no device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.skip(reason="torch.cuda is not available"))


@pytest.fixture
def network() -> nn.Sequential:
    """A small network on the device, the same in each test."""
    return small_network().cuda()


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Raise where anything waits for the device on this thread."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
