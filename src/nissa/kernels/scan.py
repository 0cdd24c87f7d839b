"""The compiled part of :mod:`nissa.kernels.cpu`: loops over numbers at addresses.

Numbers are read as their bits. Those of a magnitude are an integer that ascends with it, so every comparison is one of
integers: exact, the same for subnormals, and with infinities and NaN above all the rest.

Only :func:`compiled` is for others. What is cached on disk is renewed when this file changes, so all that is compiled
stands here.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Bits and decoded values of a block stay in the first cache.
_BLOCK = 2048
# Neighbours are often in the same bucket: four histograms keep an increment from waiting for the one before.
_HISTOGRAMS = 4
_SMALLEST_NORMAL = 0x400  # bits of float16


def compiled(*, cache: bool) -> "Callable[..., None]":
    """Return :func:`_scan`, to be compiled when it is first called with arrays of a type.

    Args:
        cache: Keep the machine code on disk, beside this file or in the user's cache folder.

    Raises:
        RuntimeError: It shall be kept, and no such folder can be written.
    """
    jitted: Callable[..., None] = njit(nogil=True, cache=cache)(_scan)
    return jitted


def _typed_pointer(_context: Any, _address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


_pointer: Any = intrinsic(_typed_pointer)  # an address as a pointer


# Sums may be added up in any order, which lets them be vectorized; NaN and infinity keep their meaning.
@njit(fastmath={"reassoc", "nsz"})
def _reduce(bits: Any, values: Any, limits: Any, sums: Any, counts: Any) -> Any:
    """Add a block to sums and counts; return its extremes as ordered integers."""
    mask, infinite, top, vanishing, exploding = limits[0], limits[1], limits[2], limits[3], limits[4]
    total, abs_total, squares = 0.0, 0.0, 0.0
    finite, zeros, below, above = 0, 0, 0, 0
    least, most = mask, ~mask
    for i in range(bits.size):
        magnitude = bits[i] & mask
        counted = magnitude < infinite
        value = np.float64(values[i]) if counted else 0.0
        total += value
        abs_total += abs(value)
        squares += value * value
        finite += counted
        zeros += magnitude == 0
        below += magnitude <= vanishing
        above += (magnitude > exploding) & counted
        # Of negative numbers, whose bits descend, all bits but the sign are turned over.
        ordered = bits[i] ^ ((bits[i] >> top) & mask)
        least = min(least, ordered if counted else mask)
        most = max(most, ordered if counted else ~mask)
    sums[0] += total
    sums[1] += abs_total
    sums[2] += squares
    counts[0] += finite
    counts[1] += zeros
    counts[2] += below
    counts[3] += above
    return least, most


@njit
def _count(bits: Any, mask: Any, shift: Any, entries: Any, histograms: Any) -> None:
    """Put each element of a block into its bucket, where no cell has more than one edge."""
    mask, shift = np.int64(mask), np.int64(shift)
    first, second, third, fourth = histograms[0], histograms[1], histograms[2], histograms[3]
    whole = bits.size // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, d = bits[i] & mask, bits[i + 1] & mask, bits[i + 2] & mask, bits[i + 3] & mask
        # Unsigned, so that no index is taken from the end.
        first[np.uint64((a + entries[np.uint64(a >> shift)]) >> shift)] += 1
        second[np.uint64((b + entries[np.uint64(b >> shift)]) >> shift)] += 1
        third[np.uint64((c + entries[np.uint64(c >> shift)]) >> shift)] += 1
        fourth[np.uint64((d + entries[np.uint64(d >> shift)]) >> shift)] += 1
    for i in range(whole, bits.size):
        a = bits[i] & mask
        first[np.uint64((a + entries[np.uint64(a >> shift)]) >> shift)] += 1


@njit
def _search(bits: Any, mask: Any, edges: Any, histogram: Any) -> None:
    """Do the same for any edges, by bisection."""
    mask = np.int64(mask)
    for i in range(bits.size):
        histogram[np.searchsorted(edges, bits[i] & mask)] += 1


@njit
def _decode(bits: Any, brain: bool, singles: Any, values: Any) -> None:
    """Write the float32 values of a block of bfloat16 or float16; those that are not finite are of no matter.

    Args:
        bits: int16.
        brain: They are bfloat16.
        singles: The memory of ``values``, as int32.
        values: float32, as many as ``bits``.
    """
    if brain:
        for i in range(bits.size):
            singles[i] = np.int32(bits[i]) << 16
        return
    for i in range(bits.size):
        magnitude = np.int32(bits[i]) & 0x7FFF
        singles[i] = (magnitude << 13) + (112 << 23)
    for i in range(bits.size):
        magnitude = np.int32(bits[i]) & 0x7FFF
        # A subnormal is its integer times the smallest one. A float32 that is subnormal never occurs on the way.
        size = values[i] if magnitude >= _SMALLEST_NORMAL else np.float32(magnitude) * np.float32(2.0**-24)
        values[i] = size if bits[i] >= 0 else -size


@njit
def _value(ordered: int, limits: Any, brain: bool, like: Any) -> float:
    """Return the number that an ordered integer stands for."""
    bits = np.empty(1, limits.dtype)
    bits[0] = ordered ^ ((ordered >> limits[2]) & limits[0])
    if bits.itemsize > 2:  # noqa: PLR2004 - the bytes of half precision
        return np.float64(bits.view(like.dtype)[0])
    values = np.empty(1, np.float32)
    _decode(bits, brain, values.view(np.int32), values)
    return np.float64(values[0])


def _scan(
    work: "NDArray[np.int64]",
    limits: "NDArray[Any]",
    like: "NDArray[Any]",
    brain: bool,
    table: "tuple[int, bool, NDArray[Any], NDArray[np.int64]]",
    found: "tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]",
) -> None:
    """Add runs of numbers to the statistics of their rows.

    Args:
        work: Shape ``(N, 3)``: row, address and size of each run.
        limits: Integers of the size of a number: the bits of magnitude, those of infinity, how far to shift the sign,
            up to which magnitude an element vanishes and above which it explodes.
        like: An empty array of the type that bits are read as; float32 for half precision, which is decoded first.
        brain: Half precision is bfloat16.
        table: How far to shift bits to get a cell, whether cells suffice, entries of cells, and the bits of edges.
        found: Shape ``(P, 5)``: the three sums, minimum and maximum. Shape ``(P, 4)``: finite, zeros, vanishing, exploding.
            Shape ``(P, E + 1)``: elements between edges; not touched where there is no edge.
    """
    shift, cells, entries, edges = table
    reduced, counts, histogram = found
    local = np.zeros((_HISTOGRAMS, histogram.shape[1]), np.int64)
    values = np.empty(_BLOCK, like.dtype)
    singles = values.view(np.int32)
    for run in range(len(work)):
        row, size = work[run, 0], work[run, 2]
        bits = carray(_pointer(work[run, 1]), (size,), limits.dtype)
        floats = carray(_pointer(work[run, 1]), (size,), like.dtype)
        least, most = np.int64(limits[0]), ~np.int64(limits[0])
        for start in range(0, size, _BLOCK):
            stop = min(start + _BLOCK, size)
            block = bits[start:stop]
            if block.itemsize > 2:  # noqa: PLR2004 - the bytes of half precision
                these = floats[start:stop]
            else:
                these = values[: stop - start]
                _decode(block, brain, singles, these)
            low, high = _reduce(block, these, limits, reduced[row], counts[row])
            least, most = min(least, low), max(most, high)
            if edges.size and cells:
                _count(block, limits[0], shift, entries, local)
            elif edges.size:
                _search(block, limits[0], edges, local[0])
        if least <= most:
            reduced[row, 3] = min(reduced[row, 3], _value(least, limits, brain, like))
            reduced[row, 4] = max(reduced[row, 4], _value(most, limits, brain, like))
        if edges.size:
            for i in range(_HISTOGRAMS):
                histogram[row] += local[i]
            local[:] = 0
