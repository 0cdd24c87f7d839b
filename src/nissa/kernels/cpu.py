"""The kernel for tensors on a CPU: one pass over each, compiled by numba (the extra ``cpu``).

It agrees with :mod:`nissa.kernels.reference` exactly in counts and extremes, and in sums to rounding: they are float64,
added up per block, then over the blocks of a run, then over runs. Which runs there are depends on sizes alone, so that the
same gradients give the same bits, however many threads there are.

A call is one compiled loop per dtype over addresses, so that a small tensor costs little. The bucket of an element comes
from a table of cells, which are ranges of the bits of a magnitude: the entry of a cell is such that adding it to the bits
carries into the upper bits exactly where the element is above the edge in its cell, which makes them the bucket.
"""

from functools import lru_cache
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from nissa.kernels import reference
from nissa.kernels.fallback import Contained
from nissa.kernels.formats import FORMATS, entries
from nissa.kernels.loops import gathering, scanning
from nissa.kernels.memory import fills_its_memory, is_plain, size, stored
from nissa.kernels.moments import Column, Layout, Thresholds
from nissa.kernels.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from nissa.kernels import Kernel

# A tensor whose elements do not fill its memory is copied, this many elements at a time.
_COPIED = 2**18
_FINITE, _ZEROS, _VANISHING, _EXPLODING = range(4)
_EMPTY = (0.0, 0.0, 0.0, inf, -inf)
_COLUMNS = int(Column.UNDERFLOW), int(Column.OVERFLOW), int(Column.BUCKETS)


def prepare() -> "Kernel":
    """Compile for float32, or load what was compiled before, and return :func:`measure`.

    The first time takes seconds, so that it is not left to the first gradients. Those of another dtype have it compiled
    when they are there.

    Raises:
        Exception: Whatever numba raises where it cannot compile.
    """
    scanning(torch.float32.itemsize)
    gathering()
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
    return _contained(tensors, layout, thresholds, scale)


def _measure(
    tensors: "Sequence[Tensor]", layout: Layout, thresholds: Thresholds, scale: "Tensor | None" = None
) -> "Tensor":
    # Nothing is asked twice: between two steps, with cold caches, each question costs a microsecond.
    plain = [scale is None and is_plain(tensor) for tensor in tensors]
    there = [tensor if is_ else stored(tensor, scale).resolve_neg() for is_, tensor in zip(plain, tensors, strict=True)]
    if not all(is_ or _readable(real) for is_, real in zip(plain, there, strict=True)):
        return reference.measure(tensors, layout, thresholds, scale)
    pass_ = _Pass(len(tensors), layout, thresholds)
    sizes = [tensor.numel() if is_ else size(tensor) for is_, tensor in zip(plain, tensors, strict=True)]
    for row, (is_, real, number) in enumerate(zip(plain, there, sizes, strict=True)):
        if is_:
            pass_.read(row, real, number)
            continue
        pass_.add(row, real)
        if number > real.numel():
            pass_.add_zeros(row, number - real.numel())
    pass_.flush()
    return torch.from_numpy(pass_.pack(np.array(sizes, dtype=np.int64)))


_contained = Contained(_measure, "The compiled kernel for CPUs")


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
        self._work: dict[torch.dtype, Work] = {}
        self._copies: list[Tensor] = []
        self._copied = 0
        self._reduced = np.tile(np.array(_EMPTY), (rows, 1))
        self._counts = np.zeros((rows, 4), dtype=np.int64)
        self._packed = np.zeros((rows, layout.width), dtype=np.int64)

    def add(self, row: int, tensor: "Tensor") -> None:
        """Have a tensor read, which must live until :meth:`flush`."""
        if fills_its_memory(tensor):
            self.read(row, tensor, tensor.numel())
            return
        for piece in reference._pieces(tensor, _COPIED):  # noqa: SLF001 - one way to cut
            copy = piece.contiguous()
            self.read(row, copy, copy.numel())
            self._copies.append(copy)
            self._copied += copy.numel()
            if self._copied >= _COPIED:
                self.flush()

    def read(self, row: int, tensor: "Tensor", numbers: int) -> None:
        """Have a tensor of so many numbers read that fills its memory and must live until :meth:`flush`."""
        if numbers:
            work = self._work.get(tensor.dtype)
            if work is None:
                work = self._work[tensor.dtype] = Work(tensor.dtype.itemsize)
            work.add(tensor.data_ptr(), numbers, row)

    def add_zeros(self, row: int, number: int) -> None:
        """Count zeros that are not stored."""
        self._counts[row] += np.array([1, 1, self._thresholds.vanishing > 0, 0]) * number
        if self._layout.buckets:
            self._packed[row, Column.UNDERFLOW] += number
        self._reduced[row, 3] = min(self._reduced[row, 3], 0.0)
        self._reduced[row, 4] = max(self._reduced[row, 4], 0.0)

    def flush(self) -> None:
        """Read what was added."""
        for dtype, work in self._work.items():
            self._scan(work, _tables(self._layout, self._thresholds, dtype))
        self._work.clear()
        self._copies.clear()
        self._copied = 0

    def _scan(self, work: Work, tables: "_Tables") -> None:
        arrays = work.arrays()
        sums, counts = np.zeros((work.runs, 5)), np.zeros((work.runs, 4), dtype=np.int64)
        told = *tables.arrays, sums, counts, self._packed
        work.run(scanning(tables.size), told, *tables.numbers, self._layout.width, *_COLUMNS)
        gathering()(arrays, (sums, counts), (self._reduced, self._counts))

    def pack(self, sizes: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Return the rows of tensors that have these sizes."""
        reduced, counts, packed = self._reduced, self._counts, self._packed
        packed[:, Column.COUNT] = sizes
        packed[:, Column.NONFINITE] = sizes - counts[:, _FINITE]
        packed[:, Column.ZEROS : Column.EXPLODING + 1] = counts[:, _ZEROS:]
        if self._layout.buckets:
            packed[:, Column.UNDERFLOW] -= counts[:, _ZEROS]
            packed[:, Column.OVERFLOW] -= packed[:, Column.NONFINITE]
        reduced[counts[:, _FINITE] == 0, 3:] = np.nan
        floats = packed.view(np.float64)[:, Column.TOTAL : Column.BUCKETS]
        floats[:, :5] = reduced
        np.maximum(reduced[:, 4], -reduced[:, 3], out=floats[:, 5])
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

    size: int
    arrays: "tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]"
    numbers: tuple[bool, int, bool]


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
    held = np.dtype(form.bits).str.replace("i", "u")
    table = np.empty(0, dtype=held) if added is None else _with_sign(added.view(np.uint64), form.mask).astype(held)
    return _Tables(dtype.itemsize, (limits, table, edges), (form.brain, shift, added is not None))


def _with_sign(added: "NDArray[np.uint64]", mask: int) -> "NDArray[np.uint64]":
    """Return the entries of cells and of those with the sign, which is taken away as all of it wraps around."""
    return np.concatenate([added, added - np.uint64(mask + 1)])
