"""The kernel for tensors on a CPU: one pass over each, compiled by numba (the extra ``cpu``).

It agrees with :mod:`nissa.kernels.reference` exactly in counts and extremes, and in sums to rounding: they are float64,
added up per block, and then over blocks. It runs on the calling thread alone, which leaves the other cores to training,
and adds in the same order every time.

A call is one compiled loop per dtype over addresses, so that a small tensor costs little. The bucket of an element comes
from a table of cells, which are ranges of the bits of a magnitude: the entry of a cell is such that adding it to the bits
carries into the upper bits exactly where the element is above the edge in its cell, which makes them the bucket.
"""

from functools import cache, lru_cache
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from nissa.kernels import reference, scan
from nissa.kernels.formats import FORMATS, entries
from nissa.kernels.memory import fills_its_memory, size, stored
from nissa.kernels.moments import Column, Layout, Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from nissa.kernels import Kernel

# A tensor whose elements do not fill its memory is copied, this many elements at a time.
_COPIED = 2**18
_FINITE, _ZEROS, _VANISHING, _EXPLODING = range(4)
_EMPTY = (0.0, 0.0, 0.0, inf, -inf)


def prepare() -> "Kernel":
    """Compile for every dtype, or load what was compiled before, and return :func:`measure`.

    The first time takes seconds, so that it is not left to the first gradients.

    Raises:
        Exception: Whatever numba raises where it cannot compile.
    """
    _scan()
    return measure


def measure(
    tensors: "Sequence[Tensor]", layout: Layout, thresholds: Thresholds, scale: "Tensor | None" = None
) -> "Tensor":
    """Return the packed statistics of tensors, as :func:`nissa.kernels.reference.measure` does.

    Tensors that cannot be read at an address (of another dtype or device, or without memory) are left to the reference.

    Args:
        tensors: Real or complex floating-point tensors on the CPU, dense or sparse, of any shape, strides and size.
        layout: Which columns to fill.
        thresholds: What counts as vanishing and exploding.
        scale: What the tensors were multiplied by, one element.

    Returns:
        int64 of shape ``(len(tensors), layout.width)``, in the layout of :mod:`nissa.kernels.moments`.
    """
    there = [stored(tensor, scale).resolve_neg() for tensor in tensors]
    if not all(map(_readable, there)):
        return reference.measure(tensors, layout, thresholds, scale)
    pass_ = _Pass(len(tensors), layout, thresholds)
    sizes = [size(tensor) for tensor in tensors]
    for row, (tensor, number) in enumerate(zip(there, sizes, strict=True)):
        pass_.add(row, tensor)
        if number > tensor.numel():
            pass_.add_zeros(row, number - tensor.numel())
    pass_.flush()
    return torch.from_numpy(pass_.pack(np.array(sizes, dtype=np.int64)))


class _Pass:
    """Collects addresses, so that each dtype is one call, and what those calls find.

    Args:
        rows: How many tensors there are.
        layout: Decides the edges.
        thresholds: Decide what counts as vanishing and exploding.
    """

    def __init__(self, rows: int, layout: Layout, thresholds: Thresholds) -> None:
        self._layout = layout
        self._thresholds = thresholds
        self._work: dict[torch.dtype, list[tuple[int, int, int]]] = {}
        self._copies: list[Tensor] = []
        self._copied = 0
        self._reduced = np.tile(np.array(_EMPTY), (rows, 1))
        self._counts = np.zeros((rows, 4), dtype=np.int64)
        self._histogram = np.zeros((rows, layout.buckets.size + 2 if layout.buckets else 1), dtype=np.int64)

    def add(self, row: int, tensor: "Tensor") -> None:
        """Have a tensor read, which must live until :meth:`flush`."""
        if fills_its_memory(tensor):
            self._read(row, tensor)
            return
        for piece in reference._pieces(tensor, _COPIED):  # noqa: SLF001 - one way to cut
            copy = piece.contiguous()
            self._read(row, copy)
            self._copies.append(copy)
            self._copied += copy.numel()
            if self._copied >= _COPIED:
                self.flush()

    def add_zeros(self, row: int, number: int) -> None:
        """Count zeros that are not stored."""
        self._counts[row] += np.array([1, 1, self._thresholds.vanishing > 0, 0]) * number
        self._histogram[row, 0] += number
        self._reduced[row, 3] = min(self._reduced[row, 3], 0.0)
        self._reduced[row, 4] = max(self._reduced[row, 4], 0.0)

    def _read(self, row: int, tensor: "Tensor") -> None:
        if tensor.numel():
            self._work.setdefault(tensor.dtype, []).append((row, tensor.data_ptr(), tensor.numel()))

    def flush(self) -> None:
        """Read what was added."""
        found = (self._reduced, self._counts, self._histogram)
        for dtype, work in self._work.items():
            _scan()(np.array(work, dtype=np.int64), *_tables(self._layout, self._thresholds, dtype), found)
        self._work.clear()
        self._copies.clear()
        self._copied = 0

    def pack(self, sizes: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Return the rows of tensors that have these sizes."""
        reduced, counts, histogram = self._reduced, self._counts, self._histogram
        packed = np.zeros((len(sizes), self._layout.width), dtype=np.int64)
        packed[:, Column.COUNT] = sizes
        packed[:, Column.NONFINITE] = sizes - counts[:, _FINITE]
        packed[:, Column.ZEROS : Column.EXPLODING + 1] = counts[:, _ZEROS:]
        if self._layout.buckets:
            packed[:, Column.UNDERFLOW] = histogram[:, 0] - counts[:, _ZEROS]
            packed[:, Column.OVERFLOW] = histogram[:, -1] - packed[:, Column.NONFINITE]
            packed[:, Column.BUCKETS :] = histogram[:, 1:-1]
        reduced[counts[:, _FINITE] == 0, 3:] = np.nan
        floats = np.column_stack((reduced, np.maximum(reduced[:, 4], -reduced[:, 3])))
        packed[:, Column.TOTAL : Column.BUCKETS] = floats.view(np.int64)
        return packed


def _readable(tensor: "Tensor") -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in FORMATS
        and tensor.layout is torch.strided
        and (tensor.data_ptr() != 0 or not tensor.numel())
    )


class _Tables(NamedTuple):
    """What :mod:`nissa.kernels.scan` is told of a dtype and its edges, in the order of its arguments."""

    limits: "NDArray[Any]"
    like: "NDArray[Any]"
    brain: bool
    table: "tuple[int, bool, NDArray[Any], NDArray[np.int64]]"


@lru_cache(maxsize=16)
def _tables(layout: Layout, thresholds: Thresholds, dtype: torch.dtype) -> _Tables:
    form = FORMATS[dtype]
    # `|x| < t` is `|x| <= e` where `e` is the float64 just below `t`; below 0 where nothing vanishes.
    below, above = form.floor(np.array([nextafter(thresholds.vanishing, -inf), thresholds.exploding]))
    limits = np.array([form.mask, form.infinite, form.mask.bit_length(), below, above], dtype=form.bits)
    edges = form.floor(layout.buckets.boundaries()) if layout.buckets else np.empty(0, dtype=np.int64)
    scale = layout.buckets.scale if layout.buckets else 0
    # Half precision has so few numbers that each is a cell of its own. Otherwise a cell is a quarter of a bucket.
    shift = 0 if form.bits is np.int16 else form.shift(scale)
    added = entries(edges, shift, (form.mask >> shift) + 1) if len(edges) else np.empty(0, dtype=np.int64)
    kept = np.dtype(np.int64 if form.bits is np.int64 else np.int32)
    fits = added is not None and (kept.itemsize > 4 or bool(np.all(added == added.astype(kept))))  # noqa: PLR2004
    table = np.empty(0, dtype=kept) if added is None or not fits else added.astype(kept)
    return _Tables(limits, np.empty(0, dtype=form.values), form.brain, (shift, fits, table, edges))


@cache
def _scan() -> "Callable[..., None]":
    """Return the loop, compiled, and kept on disk if any folder can be written."""
    try:
        kept = scan.compiled(cache=True)
        _compile(kept)
    except (OSError, RuntimeError):
        kept = scan.compiled(cache=False)
        _compile(kept)
    return kept


def _compile(loop: "Callable[..., None]") -> None:
    """Have a loop compiled for every dtype, by reading nothing."""
    work, found = np.empty((0, 3), dtype=np.int64), (np.empty((0, 5)), *(np.empty((0, 4), dtype=np.int64),) * 2)
    for dtype in FORMATS:
        loop(work, *_tables(Layout(), Thresholds(), dtype), found)
