"""The compiled loops, each made once per process when it is first needed, and kept on disk if any folder can be written."""

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nissa.kernels import scan

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

__all__ = ["gathering", "scanning", "squaring"]


@cache
def scanning(size: int) -> Any:
    """Return the loop of :mod:`nissa.kernels.cpu`.

    Args:
        size: Bytes of a number.

    Raises:
        Exception: Whatever numba raises where it cannot compile.
    """
    return _kept(lambda *, cache: scan.scanning(size, cache=cache))


@cache
def squaring(size: int) -> Any:
    """Return the loop of :mod:`nissa.kernels.squares`."""
    return _kept(lambda *, cache: scan.squaring(size, cache=cache))


@cache
def gathering() -> "Callable[..., None]":
    """Return what adds up the runs of :mod:`nissa.kernels.cpu`."""
    return _kept(_gathering)


def _gathering(*, cache: bool) -> "Callable[..., None]":
    gather = scan.gathering(cache=cache)
    floats, counts = np.empty((0, 5)), np.empty((0, 4), dtype=np.int64)
    nothing = np.empty((0, 2), dtype=np.int64), np.empty((0, 3), dtype=np.int64), np.empty(0, dtype=np.int64)
    gather(nothing, (floats, counts), (floats, counts))  # compiles it
    return gather


def _kept(make: "Callable[..., T]") -> T:
    try:
        return make(cache=True)
    except (OSError, RuntimeError):
        return make(cache=False)
