"""Which cases of the kernel for CUDA wait for ``make test-full`` where Triton interprets it."""

from pathlib import Path

import pytest
import torch

from tests.unit.kernels.agreement import LAYOUT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark interpreted cases of other layouts than the default one ``full``: each takes seconds."""
    if torch.cuda.is_available():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents and isinstance(item, pytest.Function):
            given = item.callspec.params if hasattr(item, "callspec") else {}
            if given.get("kernel") == "triton" and given.get("layout", LAYOUT) != LAYOUT:
                item.add_marker(pytest.mark.full)
