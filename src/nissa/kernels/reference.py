"""Reference kernel in plain torch; it is the specification of every kernel.

The elements ``x`` of a complex tensor are its real and imaginary parts. A sparse tensor includes its implicit zeros.
All computations are in float64:

- ``total = sum(x)``, ``abs_total = sum(|x|)``, ``sum_of_squares = sum(x * x)``, ``minimum = min(x)`` and
  ``maximum = max(x)`` over finite ``x``;
- every count is the number of elements whose ``|x|`` lies in an interval, ``lower < |x| <= upper``, computed with
  ``torch.bucketize(|x|, edges)`` and a histogram of the result (see :mod:`nissa.kernels.edges`).

:mod:`nissa.kernels.moments` lists the columns. Algorithm:

1. Divide each tensor into blocks of ``_BLOCK`` elements. Pad the last block with NaN, which is excluded from all sums
   and intervals. A chunk contains the blocks of many small tensors, so that they share the cost of each operation.
2. Compute the five reductions of each block of a chunk, and one histogram whose rows are tensors.
3. Reduce blocks to tensors, and compute counts as differences of cumulative histograms.

Temporary memory is a few chunks and five numbers per block. The host never waits for the device, except to coalesce a
sparse tensor. Inputs are not modified.
"""

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import torch

from nissa.kernels.edges import Edges
from nissa.kernels.memory import size, stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from nissa.kernels.moments import Layout, Thresholds

# Reductions from blocks to tensors: total, abs_total, sum_of_squares, minimum, maximum. Without blocks they are
# 0, 0, 0, infinity and -infinity.
_REDUCED = ("sum", "sum", "sum", "min", "max")
_BLOCK = 256
# CPU chunks are small enough for the cache, and below torch's threshold for parallelism, because the training loop
# needs the other threads. On other devices large chunks save kernel launches.
_CPU_BLOCKS = 2**15 // _BLOCK - 1
_OTHER_BLOCKS = 2**20 // _BLOCK


def measure(
    tensors: "Sequence[Tensor]", layout: "Layout", thresholds: "Thresholds", scale: "Tensor | None" = None
) -> "Tensor":
    """Return the packed statistics of tensors, on their device.

    Args:
        tensors: Real or complex floating-point tensors on one device, dense or sparse, of any shape, strides and size.
        layout: Which columns to fill.
        thresholds: Magnitudes that count as vanishing and exploding.
        scale: Factor that the tensors were multiplied by, one element on their device; statistics are of ``x / scale``.

    Returns:
        int64 of shape ``(len(tensors), layout.width)``, in the layout of :mod:`nissa.kernels.moments`.
    """
    if not tensors:
        return torch.empty((0, layout.width), dtype=torch.int64, device="cpu")
    device = tensors[0].device
    sizes, implicit, pieces = _prepare(tensors, scale, most=_capacity(device) * _BLOCK)
    blocks = [sum(map(_blocks, of_row)) for of_row in pieces]
    size_of, implicit_of, blocks_of = _put([sizes, implicit, blocks], device)
    slots = _slots(layout, thresholds, device, stream_of(device))
    histogram = torch.zeros((len(tensors), slots.number), dtype=torch.int64, device=device)
    histogram[:, 0] += implicit_of
    row_of = torch.repeat_interleave(blocks_of, output_size=sum(blocks))
    reduced = _scan(list(chain.from_iterable(pieces)), row_of, histogram, slots)
    return _pack(size_of, histogram, _over_rows(reduced, blocks_of), slots)


def _prepare(
    tensors: "Sequence[Tensor]", scale: "Tensor | None", most: int
) -> tuple[list[int], list[int], "list[list[Tensor]]"]:
    """Return size, number of implicit zeros that are only counted, and pieces to read, for each tensor."""
    sizes, implicit, pieces = [], [], []
    for tensor in tensors:
        elements = stored(tensor, scale)
        sizes.append(size(tensor))
        pieces.append(list(_pieces(elements, most)))
        implicit.append(sizes[-1] - elements.numel())
        if implicit[-1]:  # read one zero, so that minimum and maximum include it
            pieces[-1].append(elements.new_zeros(1))
            implicit[-1] -= 1
    return sizes, implicit, pieces


class _Slots(NamedTuple):
    """Edges of a layout as tensors on a device."""

    edges: "Tensor"
    intervals: "Tensor"
    first: "Tensor"
    shift: int
    most_per_cell: int

    @property
    def number(self) -> int:
        """Number of slots: one per edge, and one for infinities and NaN."""
        return len(self.edges)

    def of(self, magnitudes: "Tensor") -> "Tensor":
        """Return ``torch.bucketize(magnitudes, edges)``: the number of edges below each magnitude.

        A table lookup by exponent and leading fraction bits, followed by one or two comparisons, is about ten times
        faster.
        """
        slot = self.first.index_select(0, magnitudes.view(torch.int64) >> self.shift)
        for _ in range(self.most_per_cell):
            slot += magnitudes > self.edges.index_select(0, slot)
        return slot


@lru_cache(maxsize=32)
def _slots(layout: "Layout", thresholds: "Thresholds", device: "torch.device", _stream: int = 0) -> _Slots:
    """Return the tables of a stream.

    Each stream has its own tables, because the asynchronous copy to the device is ordered only within one stream.
    """
    edges = Edges(layout, thresholds)
    # Append infinity, so that the lookup of the slot after the last edge stays in bounds.
    closed = torch.tensor([*edges.values, torch.inf], dtype=torch.float64, device="cpu")
    intervals = send(torch.from_numpy(edges.intervals), device)
    first = send(torch.from_numpy(edges.first_slots), device)
    return _Slots(send(closed, device), intervals, first, edges.shift, edges.most_per_cell)


def _scan(pieces: "list[Tensor]", row_of: "Tensor", histogram: "Tensor", slots: _Slots) -> "Tensor":
    """Add every element to the histogram of its row; return the reductions of each block, shape ``(5, blocks)``."""
    device = row_of.device
    filling = torch.full((_BLOCK,), torch.nan, dtype=torch.float64, device=device)
    one = torch.ones((), dtype=torch.int64, device=device)
    reduced = torch.empty((len(_REDUCED), len(row_of)), dtype=torch.float64, device=device)
    start = 0
    for group in _groups(pieces, _capacity(device)):
        chunk = _chunk(group, filling)
        stop = start + len(chunk)
        reduced[:, start:stop] = _reduce(chunk)
        keys = slots.of(chunk.abs().view(-1)).view(chunk.shape) + row_of[start:stop, None] * slots.number
        # Not `bincount`, which synchronizes to read the largest key.
        histogram.view(-1).scatter_add_(0, keys.view(-1), one.expand(keys.numel()))
        start = stop
    return reduced


def _reduce(chunk: "Tensor") -> "Tensor":
    """Return the reductions of the finite elements of each block, shape ``(5, blocks)``."""
    inf = torch.inf
    finite = chunk.nan_to_num(0.0, 0.0, 0.0)
    smallest = chunk.nan_to_num(inf, inf, inf).amin(1)
    largest = chunk.nan_to_num(-inf, -inf, -inf).amax(1)
    return torch.stack((finite.sum(1), finite.abs().sum(1), finite.square().sum(1), smallest, largest))


def _over_rows(reduced: "Tensor", blocks_of: "Tensor") -> "Tensor":
    """Return the reductions of each tensor, shape ``(P, 5)``."""
    rows = [
        torch.segment_reduce(of_blocks, how, lengths=blocks_of, unsafe=True)
        for of_blocks, how in zip(reduced, _REDUCED, strict=True)
    ]
    return torch.stack(rows, dim=1)


def _pack(size_of: "Tensor", histogram: "Tensor", reduced: "Tensor", slots: _Slots) -> "Tensor":
    """Return the packed rows."""
    none_below = histogram.new_zeros((len(histogram), 1))
    up_to = torch.cat((none_below, histogram[:, :-1].cumsum(1)), dim=1)
    above, to = slots.intervals
    counts = up_to.index_select(1, to) - up_to.index_select(1, above)
    finite = up_to[:, -1:]
    sizes = size_of[:, None]
    sums, extremes = reduced[:, :3], torch.where(finite > 0, reduced[:, 3:], torch.nan)
    abs_max = torch.maximum(extremes[:, 1:], -extremes[:, :1])
    floats = torch.cat((sums, extremes, abs_max), dim=1).view(torch.int64)
    return torch.cat((sizes, sizes - finite, counts[:, :5], floats, counts[:, 5:]), dim=1)


def _pieces(tensor: "Tensor", most: int) -> "Iterator[Tensor]":
    """Split a tensor into views of up to ``most`` elements, which bounds the memory of flattening a view."""
    if tensor.numel() <= most:
        yield from [tensor] if tensor.numel() else []
    elif tensor.dim() == 1 or tensor.is_contiguous():
        yield from torch.split(tensor if tensor.dim() == 1 else tensor.view(-1), most)
    else:
        tensor = tensor.movedim(_outermost(tensor), 0)
        rows = most * len(tensor) // tensor.numel()
        for part in torch.split(tensor, rows) if rows else tensor.unbind():
            yield from _pieces(part, most)


def _outermost(tensor: "Tensor") -> int:
    """Return the dimension with the largest stride; splitting along it keeps pieces dense in memory."""
    return max(range(tensor.dim()), key=tensor.stride)


def _groups(pieces: "list[Tensor]", capacity: int) -> "Iterator[list[Tensor]]":
    """Yield the pieces of each chunk, in order."""
    group: list[Tensor] = []
    room = capacity
    for piece in pieces:
        if _blocks(piece) > room:
            yield group
            group, room = [], capacity
        group.append(piece)
        room -= _blocks(piece)
    if group:
        yield group


def _chunk(pieces: "list[Tensor]", filling: "Tensor") -> "Tensor":
    """Return the blocks of pieces, float64 of shape ``(blocks, _BLOCK)``."""
    parts: list[Tensor] = []
    for piece in pieces:
        parts += piece.reshape(-1), filling[: -piece.numel() % _BLOCK]
    return torch.cat(parts).to(torch.float64).view(-1, _BLOCK)


def _capacity(device: "torch.device") -> int:
    return _CPU_BLOCKS if device.type == "cpu" else _OTHER_BLOCKS


def _blocks(piece: "Tensor") -> int:
    return -(-piece.numel() // _BLOCK)


def _put(rows: list[list[int]], device: "torch.device") -> "Tensor":
    """Return numbers as an int64 tensor on a device, without waiting for the device."""
    return send(torch.tensor(rows, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda"), device)


def send(tensor: "Tensor", device: "torch.device") -> "Tensor":
    """Return a copy of a host tensor on a device, without waiting for the device."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def stream_of(device: "torch.device") -> int:
    """Return the handle of the current CUDA stream of a device; 0 for other devices."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
