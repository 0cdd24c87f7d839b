"""What compiled loops read: tensors at addresses, cut into runs, and runs gathered into tasks."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TASK = 2**21
"""Bytes of a task, about: a quarter of a millisecond or so, which is much more than waking a thread takes."""


class Work:
    """Tensors of one dtype.

    Args:
        itemsize: Bytes of an element.
    """

    def __init__(self, itemsize: int) -> None:
        self._most = _TASK // itemsize
        self._tensors: list[tuple[int, int]] = []
        self._sizes: list[int] = []

    def add(self, address: int, where: int, size: int) -> None:
        """Have a tensor read.

        Args:
            address: Of the first element.
            where: What its results are put to, whatever the loop takes this for.
            size: How many elements it has.
        """
        self._tensors.append((address, where))
        self._sizes.append(size)

    def arrays(self) -> "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]":
        """Return what :mod:`nissa.kernels.scan` is given."""
        tensors = np.array(self._tensors, dtype=np.int64).reshape(-1, 2)
        return tensors, *_plan(tuple(self._sizes), self._most)

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(_plan(tuple(self._sizes), self._most)[0])

    @property
    def tasks(self) -> int:
        """How many there are."""
        return len(_plan(tuple(self._sizes), self._most)[1]) - 1


@lru_cache(maxsize=64)
def _plan(sizes: tuple[int, ...], most: int) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Cut tensors into runs, and gather them into tasks, of at most so many elements or one tensor more.

    Both depend on nothing else, so that what is added up is added in the same order every time.
    """
    runs = [
        (tensor, first, min(most, size - first))
        for tensor, size in enumerate(sizes)
        for first in range(0, size, most)
    ]
    starts, room = [0], most
    for run, (_, _, size) in enumerate(runs):
        if room <= 0:
            starts.append(run)
            room = most
        room -= size
    if runs:
        starts.append(len(runs))
    return np.array(runs, dtype=np.int64).reshape(-1, 3), np.array(starts, dtype=np.int64)
