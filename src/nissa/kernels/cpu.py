"""Kernel for CPU tensors: one pass over each tensor, compiled by numba (the extra ``cpu``).

Counts and extremes are equal to those of :mod:`nissa.kernels.reference`; sums are equal up to rounding. Sums are
float64 and added per block, then over the blocks of a run, then over runs. The division into runs depends on sizes
alone. The same gradients therefore produce the same bits with any number of threads.

A call runs one compiled loop per dtype over addresses, so that small tensors are cheap. Buckets are found with a table.
A cell of the table is a range of the bits of a magnitude. Adding the entry of its cell to the bits of an element
carries into the upper bits exactly if the element is above the edge in that cell. The upper bits are then the bucket.
Only the cell of zero and the smallest subnormals can contain several edges. A block with such subnormals is searched for
them again.
"""

from functools import lru_cache
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from nissa.kernels import reference
from nissa.kernels.compiled import gather_loop, statistics_loop
from nissa.kernels.fallback import FallbackKernel
from nissa.kernels.formats import FORMATS, entries, uncounted
from nissa.kernels.memory import fills_its_memory, is_plain, size, stored
from nissa.kernels.moments import Column, Layout, Thresholds
from nissa.kernels.tasks import TaskList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from nissa.kernels import Kernel

# Tensors with gaps in memory are copied in pieces of this many elements, which bounds temporary memory.
_COPIED = 2**18
_FINITE, _ZEROS, _VANISHING, _EXPLODING = range(4)
_EMPTY = (0.0, 0.0, 0.0, inf, -inf)
_COLUMNS = int(Column.UNDERFLOW), int(Column.OVERFLOW), int(Column.BUCKETS)


def prepare() -> "Kernel":
    """Compile the loops for float32, or load them from the disk cache, and return :func:`measure`.

    Compiling takes seconds and must not delay the first step. Other dtypes are compiled at their first use.

    Raises:
        Exception: Any error of numba if it cannot compile.
    """
    statistics_loop(torch.float32.itemsize)
    gather_loop()
    return measure


def measure(
    tensors: "Sequence[Tensor]", layout: Layout, thresholds: Thresholds, scale: "Tensor | None" = None
) -> "Tensor":
    """Return the packed statistics of tensors, as :func:`nissa.kernels.reference.measure` does.

    Tensors that have no readable address (other dtype or device, no storage) are measured by the reference.

    Args:
        tensors: Real or complex floating-point tensors on the CPU, dense or sparse, of any shape, strides and size.
        layout: Which columns to fill.
        thresholds: Magnitudes that count as vanishing and exploding.
        scale: Factor that the tensors were multiplied by, one element.

    Returns:
        int64 of shape ``(len(tensors), layout.width)``, in the layout of :mod:`nissa.kernels.moments`.
    """
    return _contained(tensors, layout, thresholds, scale)


def _measure(
    tensors: "Sequence[Tensor]", layout: Layout, thresholds: Thresholds, scale: "Tensor | None" = None
) -> "Tensor":
    # Query each tensor property only once: with cold caches each query costs a microsecond between two steps.
    plain = [scale is None and is_plain(tensor) for tensor in tensors]
    stored_tensors = [
        tensor if is_ else stored(tensor, scale).resolve_neg() for is_, tensor in zip(plain, tensors, strict=True)
    ]
    if not all(is_ or _readable(real) for is_, real in zip(plain, stored_tensors, strict=True)):
        return reference.measure(tensors, layout, thresholds, scale)
    pass_ = _Pass(len(tensors), layout, thresholds)
    sizes = [tensor.numel() if is_ else size(tensor) for is_, tensor in zip(plain, tensors, strict=True)]
    for row, (is_, real, number) in enumerate(zip(plain, stored_tensors, sizes, strict=True)):
        if is_:
            pass_.read(row, real, number)
            continue
        pass_.add(row, real)
        if number > real.numel():
            pass_.add_zeros(row, number - real.numel())
    pass_.flush()
    return torch.from_numpy(pass_.pack(np.array(sizes, dtype=np.int64)))


_contained = FallbackKernel(_measure, "The compiled kernel for CPUs")


class _Pass:
    """Collector of addresses, so that each dtype needs one compiled call, and of the results of these calls.

    Args:
        rows: Number of tensors.
        layout: Defines the bucket edges.
        thresholds: Magnitudes that count as vanishing and exploding.
    """

    def __init__(self, rows: int, layout: Layout, thresholds: Thresholds) -> None:
        self._layout = layout
        self._thresholds = thresholds
        self._work: dict[torch.dtype, TaskList] = {}
        # Keeps copies alive until flush(): the compiled loop only has their addresses.
        self._copies: list[Tensor] = []
        self._copied = 0
        # Columns per row: total, abs_total, sum_of_squares, minimum, maximum.
        self._reduced = np.tile(np.array(_EMPTY), (rows, 1))
        # Columns per row: finite, zeros, vanishing, exploding.
        self._counts = np.zeros((rows, 4), dtype=np.int64)
        # Packed rows. The scan loop adds bucket counts to them directly: integer sums do not depend on the order of
        # threads.
        self._packed = np.zeros((rows, layout.width), dtype=np.int64)

    def add(self, row: int, tensor: "Tensor") -> None:
        """Queue a tensor, copying it if it has gaps; the tensor must stay alive until :meth:`flush`."""
        if fills_its_memory(tensor):
            self.read(row, tensor, tensor.numel())
            return
        for piece in reference._pieces(tensor, _COPIED):  # noqa: SLF001 - share the code that cuts tensors
            copy = piece.contiguous()
            self.read(row, copy, copy.numel())
            self._copies.append(copy)
            self._copied += copy.numel()
            if self._copied >= _COPIED:
                self.flush()

    def read(self, row: int, tensor: "Tensor", numbers: int) -> None:
        """Queue a tensor without gaps; it must stay alive until :meth:`flush`.

        Args:
            row: Row of the result.
            tensor: The tensor.
            numbers: Number of its elements.
        """
        if numbers:
            work = self._work.get(tensor.dtype)
            if work is None:
                work = self._work[tensor.dtype] = TaskList(tensor.dtype.itemsize)
            work.add(tensor.data_ptr(), numbers, row)

    def add_zeros(self, row: int, number: int) -> None:
        """Count the implicit zeros of a sparse tensor."""
        self._counts[row] += np.array([1, 1, self._thresholds.vanishing > 0, 0]) * number
        if self._layout.buckets:
            self._packed[row, Column.UNDERFLOW] += number
        self._reduced[row, 3] = min(self._reduced[row, 3], 0.0)
        self._reduced[row, 4] = max(self._reduced[row, 4], 0.0)

    def flush(self) -> None:
        """Measure all queued tensors."""
        for dtype, work in self._work.items():
            self._scan(work, _tables(self._layout, self._thresholds, dtype))
        self._work.clear()
        self._copies.clear()
        self._copied = 0

    def _scan(self, work: TaskList, tables: "_Tables") -> None:
        arrays = work.arrays()
        # Results per run, not per tensor: threads never add floats concurrently, and the order of addition is fixed.
        sums, counts = np.zeros((work.runs, 5)), np.zeros((work.runs, 4), dtype=np.int64)
        # Argument block of the scan loop after tensors, runs and tasks: inputs (limits, table, edges), then outputs.
        args = *tables.arrays, sums, counts, self._packed
        work.run(statistics_loop(tables.size), args, *tables.numbers, self._layout.width, *_COLUMNS)
        gather_loop()(arrays, (sums, counts), (self._reduced, self._counts))

    def pack(self, sizes: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Return the packed rows; ``sizes`` are the element counts of the tensors."""
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
    """Arguments of :mod:`nissa.kernels.scan` for a dtype and its edges, in order."""

    size: int
    arrays: "tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]"
    numbers: tuple[bool, int, bool]


@lru_cache(maxsize=16)
def _tables(layout: Layout, thresholds: Thresholds, dtype: torch.dtype) -> _Tables:
    form = FORMATS[dtype]
    # `|x| < t` equals `|x| <= e` where `e` is the next float64 below `t`. For `t` = 0 it is negative: nothing vanishes.
    below, above = form.floor(np.array([nextafter(thresholds.vanishing, -inf), thresholds.exploding]))
    edges = form.floor(layout.buckets.boundaries()) if layout.buckets else np.empty(0, dtype=np.int64)
    scale = layout.buckets.scale if layout.buckets else 0
    # Half precision has few enough numbers for one cell each. For other dtypes a cell is a quarter of a bucket.
    shift = 0 if form.bits is np.int16 else form.shift(scale)
    added = entries(edges, shift, (form.mask >> shift) + 1) if len(edges) else np.empty(0, dtype=np.int64)
    limits = [form.mask, form.infinite, form.mask.bit_length(), below, above, uncounted(edges, shift)]
    held = np.dtype(form.bits).str.replace("i", "u")
    table = np.empty(0, dtype=held) if added is None else _with_sign(added.view(np.uint64), form.mask).astype(held)
    return _Tables(
        dtype.itemsize, (np.array(limits, dtype=form.bits), table, edges), (form.brain, shift, added is not None)
    )


def _with_sign(added: "NDArray[np.uint64]", mask: int) -> "NDArray[np.uint64]":
    """Return the entries for both signs.

    For negative numbers the entry also subtracts the sign bit, through unsigned wrap-around, so that the loop needs no
    mask.
    """
    return np.concatenate([added, added - np.uint64(mask + 1)])
