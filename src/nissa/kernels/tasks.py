"""Work lists of the compiled loops: tensors at addresses, divided into runs, which are grouped into tasks."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nissa.kernels.openmp import parallel_for
from nissa.kernels.scan import argument_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_TASK = 2**21
"""Approximate bytes of a task: about a quarter of a millisecond, which is much longer than waking a thread."""


class TaskList:
    """Work list for tensors of one dtype.

    Args:
        itemsize: Bytes of an element.
    """

    def __init__(self, itemsize: int) -> None:
        self._most = _TASK // itemsize
        self._tensors: list[tuple[int, int]] = []
        self._sizes: list[int] = []

    def add(self, address: int, size: int, where: int) -> None:
        """Add a tensor; it must stay alive until `run` has returned.

        Args:
            address: Address of its first element.
            size: Number of contiguous elements.
            where: Second argument of the loop for this tensor: a row of the result, or the address of a copy.
        """
        self._tensors.append((address, where))
        self._sizes.append(size)

    def arrays(self) -> "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]":
        """Return the arguments of :mod:`nissa.kernels.scan`: tensors, runs and tasks."""
        tensors = np.array(self._tensors, dtype=np.int64).reshape(-1, 2)
        return tensors, *_plan(tuple(self._sizes), self._most)

    def run(self, loop: Any, arrays: "Sequence[NDArray[Any]]", *numbers: int) -> None:
        """Run a compiled loop over all tasks, on several threads.

        Args:
            loop: The compiled loop.
            arrays: Further array arguments, after tensors, runs and tasks.
            numbers: Integer arguments, after the arrays.

        Raises:
            RuntimeError: Not all tasks were done.
        """
        # Task counter: tasks begun, tasks done. Threads take the next task by an atomic addition, because they run
        # without the GIL and no Python lock is available to them.
        counter = np.zeros(2, dtype=np.int64)
        referenced = counter, *self.arrays(), *arrays  # keep references: the loop only has addresses
        # Argument block: a C callback has one pointer argument, so that all addresses, sizes and numbers are in one
        # array.
        args = argument_block(referenced, *numbers)
        parallel_for(loop.ctypes, args.__array_interface__["data"][0], self.tasks)
        if counter[1] < self.tasks:
            raise RuntimeError(f"Only {counter[1]} of {self.tasks} tasks were done.")

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(_plan(tuple(self._sizes), self._most)[0])

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(_plan(tuple(self._sizes), self._most)[1]) - 1


@lru_cache(maxsize=64)
def _plan(sizes: tuple[int, ...], most: int) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Divide tensors into runs of at most ``most`` elements, and group consecutive runs into tasks.

    A task is closed once it has ``most`` elements, so that it exceeds that by less than one run. Both depend on sizes
    alone, so that sums are added in the same order every time.
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
