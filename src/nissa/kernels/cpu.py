"""Kernel for CPU tensors: one pass over each tensor, in C.

Counts and extremes are equal to those of :mod:`nissa.kernels.reference`; sums are equal up to rounding. The same gradients
produce the same bits with any number of threads.
"""

from functools import lru_cache
from math import inf, nextafter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from nissa.kernels import native, reference
from nissa.kernels.fallback import FallbackKernel
from nissa.kernels.formats import FORMATS, Format, octave_cells, octave_edges
from nissa.kernels.memory import fills_its_memory, is_plain, size, stored
from nissa.kernels.moments import Column, Layout, Thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from nissa.kernels import Kernel

_COPIED: Final = 2**18
"""Elements of the copies of tensors with gaps that may exist at a time, which bounds temporary memory."""
_QUARTER_BUCKET: Final = 2
_SCALE_IN_REGISTERS: Final = 3
"""Scale up to which the cells of an octave fit into two vector registers."""
_TOGETHER: Final = 16
"""Indexes that the C function adds at once."""


def prepare() -> "Kernel":
    """Load the C functions and return :func:`measure`.

    Raises:
        ImportError: They were not compiled when Nissa was installed.
        OSError: They cannot be loaded.
    """
    native.library(keep_gil=True)
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
    pass_ = _Pass(len(tensors), layout, thresholds)
    for row, tensor in enumerate(tensors):
        if scale is None and is_plain(tensor):  # the usual case, without a call more than needed between two steps
            pass_.read(tensor, row)
            continue
        real = stored(tensor, scale).resolve_neg()
        if not _readable(real):
            return reference.measure(tensors, layout, thresholds, scale)
        pass_.add(row, real)
        implicit = size(tensor) - real.numel()
        if implicit:
            pass_.add_zeros(row, implicit)
    return torch.from_numpy(pass_.finish())


_contained = FallbackKernel(_measure, "The compiled kernel for CPUs")


class _Pass:
    """Collector of tensors, so that one call of a C function reads them all, and of their rows.

    Args:
        rows: Number of tensors.
        layout: Defines the bucket edges.
        thresholds: Magnitudes that count as vanishing and exploding.
    """

    def __init__(self, rows: int, layout: Layout, thresholds: Thresholds) -> None:
        # With their arrays, which the cache may drop before the C function is called.
        self._tables = [_tables(layout, thresholds, dtype) for dtype in (torch.float64, torch.float32)]
        self._vanishing = thresholds.vanishing > 0
        self._queued = native.TensorTable()
        # Queues a tensor without gaps for a row; it must stay alive until finish().
        self.read = self._queued.add
        # Keeps tensors alive until flush(): the C function only has their addresses.
        self._kept: list[Tensor] = []
        self._copied = 0
        self._rows = np.empty((rows, layout.width), dtype=np.int64)
        native.begin(self._rows)

    def add(self, row: int, tensor: "Tensor") -> None:
        """Queue a tensor that may have no other reference, copying it if it has gaps."""
        if fills_its_memory(tensor):
            self.read(tensor, row)
            self._kept.append(tensor)
            return
        for piece in reference._pieces(tensor, _COPIED):  # noqa: SLF001 - share the code that cuts tensors
            copy = piece.contiguous()
            self.read(copy, row)
            self._kept.append(copy)
            self._copied += copy.numel()
            if self._copied >= _COPIED:
                self._flush()

    def add_zeros(self, row: int, number: int) -> None:
        """Count the implicit zeros of a sparse tensor."""
        for column in (Column.COUNT, Column.ZEROS, *([Column.VANISHING] if self._vanishing else [])):
            self._rows[row, column] += number
        floats = self._rows.view(np.float64)
        floats[row, Column.MINIMUM] = min(floats[row, Column.MINIMUM], 0.0)
        floats[row, Column.MAXIMUM] = max(floats[row, Column.MAXIMUM], 0.0)

    def finish(self) -> "NDArray[np.int64]":
        """Measure all queued tensors and return the packed rows."""
        self._flush()
        native.end(self._rows)
        return self._rows

    def _flush(self) -> None:
        doubles, singles = self._tables
        self._queued.add_statistics(self._rows, doubles.tables, singles.tables)
        self._queued.clear()
        self._kept.clear()
        self._copied = 0


def _readable(tensor: "Tensor") -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in FORMATS
        and tensor.layout is torch.strided
        and (tensor.data_ptr() != 0 or not tensor.numel())
    )


class _Tables(NamedTuple):
    """Tables of the C functions; the arrays keep the memory of the pointers alive."""

    tables: native.Tables
    arrays: "tuple[NDArray[np.signedinteger], ...]"


@lru_cache(maxsize=16)
def _tables(layout: Layout, thresholds: Thresholds, dtype: torch.dtype) -> _Tables:
    """Return the tables for a dtype; half precision is decoded to float32 first and has the tables of that."""
    form, buckets = FORMATS[dtype], layout.buckets
    # `|x| < t` equals `|x| <= e` where `e` is the next float64 below `t`. For `t` = 0 it is negative: nothing vanishes.
    below, above = map(int, form.floor(np.array([nextafter(thresholds.vanishing, -inf), thresholds.exploding])))
    if buckets is None:
        return _Tables(native.Tables(below=below, above=above), ())
    scale = max(buckets.scale, 0)
    # A cell is at most a quarter of a bucket, so that it has at most one edge.
    cell_bits = max(scale, _SCALE_IN_REGISTERS) + _QUARTER_BUCKET
    edges = form.floor(buckets.boundaries())
    # The largest magnitude with an index is that of its edge; the last index belongs to the largest finite number.
    exponents = np.arange(form.infinite >> form.fraction, dtype=np.int64)[:, np.newaxis] << form.fraction
    largest = np.append((exponents + octave_edges(scale, form)).ravel(), form.infinite - 1)
    columns = np.arange(Column.BUCKETS - 1, Column.BUCKETS + buckets.size + 1, dtype=np.int32)
    columns[0], columns[-1] = Column.UNDERFLOW, Column.OVERFLOW
    column_of_index = np.zeros(-(-len(largest) // _TOGETHER) * _TOGETHER, dtype=np.int32)
    column_of_index[: len(largest)] = columns[np.searchsorted(edges, largest)]
    arrays = (
        _octave(scale, form, cell_bits).astype(form.bits),
        column_of_index,
        edges.astype(form.bits),
        columns,
    )
    numbers = below, above, scale, cell_bits, len(column_of_index), len(edges)
    return _Tables(native.Tables(*numbers, *(array.ctypes.data for array in arrays)), arrays)


def _octave(scale: int, form: Format, cell_bits: int) -> "NDArray[np.int64]":
    """Return the entry of each of the ``2**cell_bits`` cells of an octave.

    Adding it to the bits of a magnitude in that cell gives ``exponent * 2**scale + n`` in the bits above
    ``fraction - scale``, where ``n`` is the number of edges of the octave below the magnitude.
    """
    cells = octave_cells(scale, form, form.fraction - cell_bits)
    entries: NDArray[np.int64] = ((cells.below + 1) << (form.fraction - scale)) - cells.inside - 1
    return entries
