"""Compiled loops: compiled once per process at first use, and cached on disk if a folder is writable."""

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nissa.kernels import scan

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

__all__ = ["gather_loop", "squares_loop", "statistics_loop"]


@cache
def statistics_loop(size: int) -> Any:
    """Return the loop of :mod:`nissa.kernels.cpu`.

    Args:
        size: Bytes per element.

    Raises:
        Exception: Any error of numba if it cannot compile.
    """
    return _cached_on_disk(lambda *, cache: scan.statistics_loop(size, cache=cache))


@cache
def squares_loop(size: int) -> Any:
    """Return the loop of :mod:`nissa.kernels.squares`."""
    return _cached_on_disk(lambda *, cache: scan.squares_loop(size, cache=cache))


@cache
def gather_loop() -> "Callable[..., None]":
    """Return the loop that adds up the runs of :mod:`nissa.kernels.cpu`."""
    return _cached_on_disk(_make_gather_loop)


def _make_gather_loop(*, cache: bool) -> "Callable[..., None]":
    gather = scan.gather_loop(cache=cache)
    floats, counts = np.empty((0, 5)), np.empty((0, 4), dtype=np.int64)
    nothing = np.empty((0, 2), dtype=np.int64), np.empty((0, 3), dtype=np.int64), np.empty(0, dtype=np.int64)
    gather(nothing, (floats, counts), (floats, counts))  # call it once to compile it for these types
    return gather


def _cached_on_disk(make: "Callable[..., T]") -> T:
    try:
        return make(cache=True)
    except (OSError, RuntimeError):
        return make(cache=False)
