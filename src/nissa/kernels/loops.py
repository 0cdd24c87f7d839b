"""Compiled loops: compiled once per process at first use, and cached on disk if a folder is writable."""

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
        size: Bytes per element.

    Raises:
        Exception: Any error of numba if it cannot compile.
    """
    return _kept(lambda *, cache: scan.scanning(size, cache=cache))


@cache
def squaring(size: int) -> Any:
    """Return the loop of :mod:`nissa.kernels.squares`."""
    return _kept(lambda *, cache: scan.squaring(size, cache=cache))


@cache
def gathering() -> "Callable[..., None]":
    """Return the loop that adds up the runs of :mod:`nissa.kernels.cpu`."""
    return _kept(_gathering)


def _gathering(*, cache: bool) -> "Callable[..., None]":
    gather = scan.gathering(cache=cache)
    floats, counts = np.empty((0, 5)), np.empty((0, 4), dtype=np.int64)
    nothing = np.empty((0, 2), dtype=np.int64), np.empty((0, 3), dtype=np.int64), np.empty(0, dtype=np.int64)
    gather(nothing, (floats, counts), (floats, counts))  # call it once to compile it for these types
    return gather


def _kept(make: "Callable[..., T]") -> T:
    try:
        return make(cache=True)
    except (OSError, RuntimeError):
        return make(cache=False)
