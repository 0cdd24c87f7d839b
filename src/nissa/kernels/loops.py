"""The compiled loops, once per process."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from nissa.kernels import scan

if TYPE_CHECKING:
    from nissa.kernels.scan import Loops


@cache
def loops() -> "Loops":
    """Return the loops, compiled for every dtype, and kept on disk if any folder can be written.

    Raises:
        Exception: Whatever numba raises where it cannot compile.
    """
    try:
        return _prepared(cache=True)
    except (OSError, RuntimeError):
        return _prepared(cache=False)


def _prepared(*, cache: bool) -> "Loops":
    kept = scan.compiled(cache=cache)
    floats, counts = np.empty((0, 5)), np.empty((0, 4), dtype=np.int64)
    tensors, runs, tasks = (
        np.empty((0, 2), dtype=np.int64),
        np.empty((0, 3), dtype=np.int64),
        np.empty(0, dtype=np.int64),
    )
    kept.gather((tensors, runs, tasks), (floats, counts), (floats, counts))  # compiles it
    return kept
