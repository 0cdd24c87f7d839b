"""Which cases of the kernel for CUDA wait for ``make test-full`` where Triton interprets it."""

from pathlib import Path

import pytest
import torch

from tests.unit.kernels.agreement import LAYOUT

INTERPRETED_SLOWLY = {
    "test_any_numbers_of_any_dtypes[triton]",
    "test_every_number_of_half_precision[triton-torch.float16]",
    "test_every_number_of_half_precision[triton-torch.bfloat16]",
    "test_layouts_and_strides[triton-a long and strided inner dimension]",
    "test_layouts_and_strides[triton-channels last]",
    "test_layouts_and_strides[triton-every other element]",
    "test_layouts_and_strides[triton-expanded]",
    "test_the_same_numbers_give_the_same_bits_and_are_left_as_they_are[triton]",
    "test_a_tensor_may_begin_and_end_anywhere[torch.bfloat16]",
    "test_a_tensor_may_begin_and_end_anywhere[torch.float16]",
    "test_a_tensor_may_begin_and_end_anywhere[torch.float64]",
}
"""Cases of the default layout that take 4 to 20 s, each beside another that shows the same for a smaller tensor."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark interpreted cases ``full`` that take seconds, as each of another layout than the default one does."""
    if torch.cuda.is_available():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents and isinstance(item, pytest.Function):
            given = item.callspec.params if hasattr(item, "callspec") else {}
            another = given.get("kernel") == "triton" and given.get("layout", LAYOUT) != LAYOUT
            if another or item.name in INTERPRETED_SLOWLY:
                item.add_marker(pytest.mark.full)
