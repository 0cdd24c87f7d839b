"""What compiled loops read: tensors at addresses, cut into runs, and runs gathered into tasks."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nissa.kernels.openmp import together
from nissa.kernels.scan import given

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def add(self, address: int, size: int, where: int) -> None:
        """Have a tensor read, which must live until then.

        Args:
            address: Of its first element.
            size: How many elements there are, one behind the other.
            where: What the loop is told of it besides.
        """
        self._tensors.append((address, where))
        self._sizes.append(size)

    def arrays(self) -> "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]":
        """Return what :mod:`nissa.kernels.scan` is given."""
        tensors = np.array(self._tensors, dtype=np.int64).reshape(-1, 2)
        return tensors, *_plan(tuple(self._sizes), self._most)

    def run(self, loop: Any, arrays: "Sequence[NDArray[Any]]", *numbers: int) -> None:
        """Have a loop do all tasks, on as many threads as there are.

        Args:
            loop: Compiled.
            arrays: What it is told of besides tensors, runs and tasks.
            numbers: What it is told behind those.

        Raises:
            RuntimeError: Something is not done.
        """
        claims = np.zeros(2, dtype=np.int64)
        there = claims, *self.arrays(), *arrays  # held until the end: the loop knows nothing but addresses
        told = given(there, *numbers)
        together(loop.ctypes, told.__array_interface__["data"][0], self.tasks)
        if claims[1] < self.tasks:
            raise RuntimeError(f"Only {claims[1]} of {self.tasks} tasks were done.")

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
        (tensor, first, min(most, size - first)) for tensor, size in enumerate(sizes) for first in range(0, size, most)
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
