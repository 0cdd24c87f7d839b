"""Compiled sums of squares of CPU tensors and of their change; replaces `torch._foreach_norm` on the CPU."""

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from nissa.kernels.native import IGNORE, SUBTRACT, WRITE, TensorTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Copies", "squares"]

_LINE = 64  # bytes of a cache line


class Copies:
    """Copies of tensors for which :func:`nissa.kernels.memory.is_plain` is true.

    They share one allocation, so that NumPy requests huge pages for it if it is large. Each copy begins at a cache
    line.

    Args:
        tensors: Tensors to allocate copies for; :func:`squares` writes the copies.
    """

    def __init__(self, tensors: "Sequence[Tensor]") -> None:
        lines = (-(-tensor.nbytes // _LINE) for tensor in tensors)
        self._starts = [_LINE * line for line in accumulate(lines, initial=0)]
        self._kinds = [(tensor.dtype, tensor.shape) for tensor in tensors]
        self._memory = np.empty(self._starts[-1], dtype=np.uint8)

    def addresses(self) -> list[int]:
        """Return the address of each copy."""
        first: int = self._memory.__array_interface__["data"][0]
        return [first + start for start in self._starts[:-1]]

    def is_of(self, row: int, tensor: "Tensor") -> bool:
        """Whether a tensor still has the shape and dtype of its copy."""
        return self._kinds[row] == (tensor.dtype, tensor.shape)

    def tensor(self, row: int) -> "Tensor":
        """Return one copy as a tensor that shares its memory."""
        dtype, shape = self._kinds[row]
        start = self._starts[row]
        piece = self._memory[start : start + shape.numel() * dtype.itemsize]
        return torch.from_numpy(piece).view(dtype).view(shape)


def squares(
    tensors: "Sequence[Tensor]", copies: "Sequence[int] | None" = None, *, write: bool = False
) -> "NDArray[np.float64]":
    """Return the sum of squares of each tensor, or of its difference from its copy.

    Args:
        tensors: Tensors for which :func:`nissa.kernels.memory.is_plain` is true.
        copies: Addresses of the copies; ``None`` for the squares of the tensors themselves.
        write: Write the copies in the same pass; the result is then the squares of the tensors themselves.

    Returns:
        float64 of shape ``(len(tensors),)``; NaN and infinity pass through.
    """
    table = TensorTable()
    for row, tensor in enumerate(tensors):
        table.add(tensor, 0 if copies is None else copies[row])
    return table.squares(IGNORE if copies is None else WRITE if write else SUBTRACT)
