"""Tells distributed tensors apart without importing ``torch.distributed``, which few training runs need."""

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Number = TypeVar("Number", bound="torch.Tensor | float")


def distributed_exist() -> bool:
    """Whether there can be a ``DTensor``: where nobody imported what makes them, there is none."""
    return "torch.distributed.tensor" in sys.modules


def is_distributed(tensor: object) -> bool:
    """Whether it is a ``DTensor``, of which this rank may hold a part only."""
    return distributed_exist() and isinstance(tensor, sys.modules["torch.distributed.tensor"].DTensor)


def whole(value: Number) -> Number:
    """Return a distributed tensor as a plain one, alike on all ranks, which all must ask for it; others as they are."""
    return value.full_tensor() if is_distributed(value) else value  # type: ignore[union-attr]  # a DTensor has it
