"""Detection of ``DTensor`` without importing ``torch.distributed.tensor``, which few training runs need."""

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Number = TypeVar("Number", bound="torch.Tensor | float")


def distributed_exist() -> bool:
    """Whether a ``DTensor`` can exist: only if ``torch.distributed.tensor`` has been imported."""
    return "torch.distributed.tensor" in sys.modules


def is_distributed(tensor: object) -> bool:
    """Whether the object is a ``DTensor``; this rank may hold only a part of it."""
    return distributed_exist() and isinstance(tensor, sys.modules["torch.distributed.tensor"].DTensor)


def whole(value: Number) -> Number:
    """Return the full tensor of a ``DTensor`` (a collective: all ranks must call it); other values unchanged."""
    return value.full_tensor() if is_distributed(value) else value  # type: ignore[union-attr]  # a DTensor has it
