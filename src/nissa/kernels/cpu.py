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
from nissa.kernels.moments import Column, Layout, Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

# A tensor whose elements do not fill its memory is copied, this many elements at a time.
_COPIED = 2**18
_QUARTER_BUCKET = 2
_FINITE, _ZEROS, _VANISHING, _EXPLODING = range(4)
_EMPTY = (0.0, 0.0, 0.0, inf, -inf)


class _Format(NamedTuple):
    """How numbers of a dtype are read."""

    bits: type[Any]
    values: type[Any]
    fraction: int  # bits of it
    brain: bool = False

    @property
    def mask(self) -> int:
        """All bits of a magnitude."""
        return int(np.iinfo(self.bits).max)

    @property
    def infinite(self) -> int:
        """The bits of infinity."""
        return self.mask >> self.fraction << self.fraction

    def floor(self, magnitudes: "NDArray[np.float64]") -> "NDArray[np.int64]":
        """Return the bits of the largest finite number that does not exceed each magnitude; -1 below 0."""
        held = np.dtype(f"f{np.dtype(self.bits).itemsize}" if not self.brain else "f4")
        capped = np.clip(magnitudes, 0.0, float(np.finfo(held).max))
        near = capped.astype(held)
        near = np.where(near.astype(np.float64) > capped, np.nextafter(near, held.type(0)), near)
        bits = near.view(f"i{held.itemsize}").astype(np.int64) >> (16 if self.brain else 0)
        return np.where(magnitudes < 0, -1, bits)


_FORMATS = {
    torch.float64: _Format(np.int64, np.float64, 52),
    torch.float32: _Format(np.int32, np.float32, 23),
    torch.float16: _Format(np.int16, np.float32, 10),
    torch.bfloat16: _Format(np.int16, np.float32, 7, brain=True),
}


def prepare() -> "Callable[[Sequence[Tensor], Layout, Thresholds], Tensor]":
    """Compile for every dtype, or load what was compiled before, and return :func:`measure`.

    The first time takes seconds, so that it is not left to the first gradients.

    Raises:
        Exception: Whatever numba raises where it cannot compile.
    """
    _scan()
    return measure


def measure(tensors: "Sequence[Tensor]", layout: Layout, thresholds: Thresholds) -> "Tensor":
    """Return the packed statistics of tensors, as :func:`nissa.kernels.reference.measure` does.

    Tensors that cannot be read at an address (of another dtype or device, or without memory) are left to the reference.

    Args:
        tensors: Real or complex floating-point tensors on the CPU, dense or sparse, of any shape, strides and size.
        layout: Which columns to fill.
        thresholds: What counts as vanishing and exploding.

    Returns:
        int64 of shape ``(len(tensors), layout.width)``, in the layout of :mod:`nissa.kernels.moments`.
    """
    stored = [reference._stored(tensor).resolve_neg() for tensor in tensors]  # noqa: SLF001 - one specification
    if not all(map(_readable, stored)):
        return reference.measure(tensors, layout, thresholds)
    pass_ = _Pass(len(tensors), layout, thresholds)
    sizes = [tensor.numel() * (2 if tensor.is_complex() else 1) for tensor in tensors]
    for row, (tensor, size) in enumerate(zip(stored, sizes, strict=True)):
        pass_.add(row, tensor)
        if size > tensor.numel():
            pass_.add_zeros(row, size - tensor.numel())
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
        if _fills_its_memory(tensor):
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
        and tensor.dtype in _FORMATS
        and tensor.layout is torch.strided
        and (tensor.data_ptr() != 0 or not tensor.numel())
    )


def _fills_its_memory(tensor: "Tensor") -> bool:
    """Tell whether the elements are, in some order, all that is there from the first to the last."""
    if tensor.is_contiguous():
        return True
    outermost_first = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(outermost_first).is_contiguous()


class _Tables(NamedTuple):
    """What :mod:`nissa.kernels.scan` is told of a dtype and its edges, in the order of its arguments."""

    limits: "NDArray[Any]"
    like: "NDArray[Any]"
    brain: bool
    table: "tuple[int, bool, NDArray[Any], NDArray[np.int64]]"


@lru_cache(maxsize=16)
def _tables(layout: Layout, thresholds: Thresholds, dtype: torch.dtype) -> _Tables:
    form = _FORMATS[dtype]
    # `|x| < t` is `|x| <= e` where `e` is the float64 just below `t`; below 0 where nothing vanishes.
    below, above = form.floor(np.array([nextafter(thresholds.vanishing, -inf), thresholds.exploding]))
    limits = np.array([form.mask, form.infinite, form.mask.bit_length(), below, above], dtype=form.bits)
    edges = form.floor(layout.buckets.boundaries()) if layout.buckets else np.empty(0, dtype=np.int64)
    scale = max(layout.buckets.scale, 0) if layout.buckets else 0
    # Half precision has so few numbers that each is a cell of its own. Otherwise a cell is a quarter of a bucket.
    shift = 0 if form.bits is np.int16 else max(form.fraction - scale - _QUARTER_BUCKET, 0)
    entries = _entries(edges, shift, form) if len(edges) else np.empty(0, dtype=np.int64)
    kept = np.dtype(np.int64 if form.bits is np.int64 else np.int32)
    fits = entries is not None and (kept.itemsize > 4 or bool(np.all(entries == entries.astype(kept))))  # noqa: PLR2004
    table = np.empty(0, dtype=kept) if entries is None or not fits else entries.astype(kept)
    return _Tables(limits, np.empty(0, dtype=form.values), form.brain, (shift, fits, table, edges))


def _entries(edges: "NDArray[np.int64]", shift: int, form: _Format) -> "NDArray[np.int64] | None":
    """Return what to add to the bits in each cell, or nothing where a cell has too many edges for that.

    An edge at the upper end of a cell counts for those above. Elsewhere, only one fits.
    """
    starts = np.arange((form.mask >> shift) + 1, dtype=np.int64) << shift
    ends = starts + ((1 << shift) - 1)
    first: NDArray[np.int64] = np.searchsorted(edges, starts)
    up_to = np.searchsorted(edges, ends)
    if np.any(up_to - first > 1):
        return None
    inside = np.where(up_to > first, np.append(edges, 0)[first], ends)
    entries: NDArray[np.int64] = (first << shift) + (ends - inside) - starts
    return entries


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
    for dtype in _FORMATS:
        loop(work, *_tables(Layout(), Thresholds(), dtype), found)
