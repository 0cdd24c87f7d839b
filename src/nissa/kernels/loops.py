"""The compiled loops, once per process."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from nissa.kernels import scan
from nissa.kernels.formats import FORMATS

if TYPE_CHECKING:
    from nissa.kernels.scan import Loops


@cache
def loops() -> "Loops":
    """Return the loops, compiled for every dtype, and kept on disk if any folder can be written.

    Raises:
        Exception: Whatever numba raises where it cannot compile.
    """
    try:
        kept = scan.compiled(cache=True)
        _compile(kept)
    except (OSError, RuntimeError):
        kept = scan.compiled(cache=False)
        _compile(kept)
    return kept


def _compile(kept: "Loops") -> None:
    """Have each loop compiled for every dtype, by reading nothing."""
    claims, empty = np.zeros(2, dtype=np.int64), np.zeros(1, dtype=np.int64)
    work = np.empty((0, 2), dtype=np.int64), np.empty((0, 3), dtype=np.int64), empty
    floats, counts = np.empty((0, 5)), np.empty((0, 4), dtype=np.int64)
    for form in FORMATS.values():
        limits, like = np.zeros(5, dtype=form.bits), np.empty(0, dtype=form.values)
        entries = np.empty(0, dtype=np.int64 if form.bits is np.int64 else np.int32)
        table = 0, False, entries, np.empty(0, dtype=np.int64)
        kept.scan(claims, work, limits, like, form.brain, table, (floats, counts, counts, (0, 0, 0)))
        kept.squares(claims, work, (limits, like, form.brain), False, floats[:, 0])
    kept.gather(work, (floats, counts), (floats, counts))
