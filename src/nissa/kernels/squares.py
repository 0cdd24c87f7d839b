"""Sums of squares of tensors on a CPU and of their change, by compiled loops: the counterpart of `torch._foreach_norm`."""

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from nissa.kernels.formats import FORMATS
from nissa.kernels.loops import squaring
from nissa.kernels.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Copies", "squares"]

_LINE = 64  # bytes of a line of the cache


class Copies:
    """Copies of tensors that :func:`nissa.kernels.memory.is_plain` holds for.

    They are in one piece of memory, which numpy asks to have in huge pages where it is large.

    Args:
        tensors: Whose copies they are to be; :func:`squares` writes them.
    """

    def __init__(self, tensors: "Sequence[Tensor]") -> None:
        lines = (-(-tensor.nbytes // _LINE) for tensor in tensors)
        self._starts = [_LINE * line for line in accumulate(lines, initial=0)]
        self._kinds = [(tensor.dtype, tensor.shape) for tensor in tensors]
        self._memory = np.empty(self._starts[-1], dtype=np.uint8)

    def addresses(self) -> list[int]:
        """Return where each is."""
        first: int = self._memory.__array_interface__["data"][0]
        return [first + start for start in self._starts[:-1]]

    def is_of(self, row: int, tensor: "Tensor") -> bool:
        """Tell whether a tensor is still of the same shape and dtype."""
        return self._kinds[row] == (tensor.dtype, tensor.shape)

    def tensor(self, row: int) -> "Tensor":
        """Return one of them as a tensor in the same memory."""
        dtype, shape = self._kinds[row]
        start = self._starts[row]
        piece = self._memory[start : start + shape.numel() * dtype.itemsize]
        return torch.from_numpy(piece).view(dtype).view(shape)


def squares(
    tensors: "Sequence[Tensor]", copies: "Sequence[int] | None" = None, *, write: bool = False
) -> "NDArray[np.float64]":
    """Return the sum of squares of each tensor, or of each less its copy.

    Args:
        tensors: Those that :func:`nissa.kernels.memory.is_plain` holds for.
        copies: Where the copy of each is; ``None`` for the squares of tensors themselves.
        write: Write copies on the way, which makes it those of tensors themselves, too.

    Returns:
        float64 of shape ``(len(tensors),)``; NaN and infinity pass through.
    """
    found = np.zeros(len(tensors))
    works: dict[torch.dtype, tuple[Work, list[int]]] = {}
    for row, tensor in enumerate(tensors):
        work, rows = works.setdefault(tensor.dtype, (Work(tensor.dtype.itemsize), []))
        work.add(tensor.data_ptr(), tensor.numel(), 0 if copies is None else copies[row])
        rows.append(row)
    for dtype, (work, rows) in works.items():
        form, of_runs = FORMATS[dtype], np.zeros(work.runs)
        work.run(squaring(dtype.itemsize), (of_runs,), form.brain, write)
        found[rows] = np.bincount(work.arrays()[1][:, 0], of_runs, len(rows))
    return found
