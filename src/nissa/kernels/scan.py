"""The compiled part of :mod:`nissa.kernels.cpu` and :mod:`nissa.kernels.squares`: loops over numbers at addresses.

Numbers are read as their bits. Those of a magnitude are an integer that ascends with it, so every comparison is one of
integers: exact, the same for subnormals, and with infinities and NaN above all the rest.

Several threads may be in a loop at once. Work is a list of runs, cut into tasks, and each thread takes the next task by an
atomic addition, without the interpreter's lock. Floating-point results are written per run, so that they do not depend on
who did which.

What has no underscore is for others. What is cached on disk is renewed when this file changes, so all that is compiled
stands here.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

# Bits and decoded values of a block stay in the first cache.
_BLOCK = 2048
# Neighbours are often in the same bucket: a second histogram keeps an increment from waiting for the one before.
_HISTOGRAMS = 2
_SMALLEST_NORMAL, _INFINITE = 0x400, 0x7C00  # bits of float16


# From so many numbers of half precision on, it is faster to count each of the 65,536 there are.
_MANY = 2**16
_HALVES = 2**16
_HALF, _SINGLE = 2, 4  # bytes


# By the bytes of a number: the type of its bits, and what they are read as.
_TYPES = {8: (np.int64, np.float64), 4: (np.int32, np.float32), 2: (np.int16, np.float32)}
_SIGNATURE = "void(voidptr)"


def statistics_loop(size: int, *, cache: bool) -> Any:
    """Return the compiled loop that fills rows of statistics, a C function.

    Args:
        size: Bytes of a number.
        cache: Keep the machine code on disk, beside this file or in the user's cache folder.

    Raises:
        RuntimeError: It shall be kept, and no such folder can be written.
    """
    return cfunc(_SIGNATURE, cache=cache)(_make_statistics_loop(*_TYPES[size]))


def squares_loop(size: int, *, cache: bool) -> Any:
    """Return the compiled loop that adds up squares in the same way."""
    return cfunc(_SIGNATURE, cache=cache)(_make_squares_loop(*_TYPES[size]))


def gather_loop(*, cache: bool) -> "Callable[..., None]":
    """Return the loop that adds up runs, which is called from Python and compiled when it is."""
    gather: Callable[..., None] = njit(nogil=True, cache=cache)(_gather)
    return gather


def argument_block(arrays: "Sequence[NDArray[Any]]", *numbers: int) -> "NDArray[np.int64]":
    """Return what a loop is told: the address and size of arrays, which must live, and then some numbers."""
    args = [each for array in arrays for each in (array.__array_interface__["data"][0], array.size)]
    return np.array([*args, *numbers], dtype=np.int64)


def _typed_pointer(_context: Any, _address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def _typed_add(_context: Any, _address: Any, _number: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, number = arguments
        return builder.atomic_rmw("add", builder.inttoptr(address, number.type.as_pointer()), number, "seq_cst")

    return types.int64(types.int64, types.int64), generate


_pointer: Any = intrinsic(_typed_pointer)  # an address as a pointer
_add: Any = intrinsic(_typed_add)  # to an int64 at an address, at once; what was there


@njit
def _row(args: Any, index: int, dtype: Any) -> Any:
    """Return one of the arrays that a loop is told of."""
    return carray(_pointer(args[2 * index]), (args[2 * index + 1],), dtype)


@njit
def _rows(args: Any, index: int, columns: int, dtype: Any) -> Any:
    """Return one of them, as rows of so many columns."""
    size = args[2 * index + 1]
    return carray(_pointer(args[2 * index]), (size // columns, columns), dtype)


@njit
def _next_task(counter: Any) -> Any:
    """Take the next task."""
    return _add(np.int64(counter.ctypes.data), np.int64(1))


@njit
def _task_done(counter: Any) -> None:
    """Note that one more task is done."""
    _add(np.int64(counter.ctypes.data) + 8, np.int64(1))


# Sums may be added up in any order, which lets them be vectorized; NaN and infinity keep their meaning.
@njit(fastmath={"reassoc", "nsz"})
def _reduce(bits: Any, values: Any, limits: Any, sums: Any, counts: Any) -> Any:
    """Add a block to sums and counts; return its extremes as ordered integers."""
    # Numba makes every integer one of 64 bits, of which fewer fit into a register: each is brought back to its size.
    number = limits.dtype.type
    mask, infinite, top, vanishing, exploding = limits[0], limits[1], limits[2], limits[3], limits[4]
    total, abs_total, squares = 0.0, 0.0, 0.0
    zeros, below, above = number(0), number(0), number(0)
    least, most = mask, number(~mask)
    for i in range(bits.size):
        magnitude = number(bits[i] & mask)
        value = np.float64(values[i])
        total += value
        abs_total += abs(value)
        squares += value * value
        zeros = number(zeros + (magnitude == 0))
        below = number(below + (magnitude <= vanishing))
        above = number(above + (magnitude > exploding))
        ordered = _ordered(bits[i], mask, top)
        least = min(least, ordered)
        most = max(most, ordered)
    if most >= infinite or least <= ~infinite:
        return _reduce_finite(bits, values, limits, sums, counts)
    sums[0] += total
    sums[1] += abs_total
    sums[2] += squares
    counts[0] += bits.size
    counts[1] += zeros
    counts[2] += below
    counts[3] += above
    return least, most


@njit
def _ordered(bits: Any, mask: Any, top: Any) -> Any:
    """Return an integer that ascends with the number: of negative ones, all bits but the sign are turned over."""
    number = type(mask)
    return number(bits ^ number(number(bits >> top) & mask))


@njit
def _reduce_finite(bits: Any, values: Any, limits: Any, sums: Any, counts: Any) -> Any:
    """Do the same for the finite numbers of a block that has others."""
    mask, infinite, top, vanishing, exploding = limits[0], limits[1], limits[2], limits[3], limits[4]
    least, most = mask, limits.dtype.type(~mask)
    for i in range(bits.size):
        magnitude = bits[i] & mask
        if magnitude >= infinite:
            continue
        value = np.float64(values[i])
        sums[0] += value
        sums[1] += abs(value)
        sums[2] += value * value
        counts[0] += 1
        counts[1] += magnitude == 0
        counts[2] += magnitude <= vanishing
        counts[3] += magnitude > exploding
        ordered = _ordered(bits[i], mask, top)
        least, most = min(least, ordered), max(most, ordered)
    return least, most


@njit
def _count(bits: Any, shift: Any, entries: Any, histograms: Any) -> None:
    """Put each element of a block into its bucket, where no cell has more than one edge.

    Cells with the sign have entries of their own, which take it away. What is added wraps around.
    """
    one, other = histograms[0], histograms[1]
    unsigned = bits.view(entries.dtype)
    # Singles are read in pairs, which begin at a multiple of their size.
    first = (np.int64(bits.ctypes.data) >> 2) & 1 if entries.itemsize == _SINGLE else 0
    last = first + (bits.size - first) // 2 * 2
    if entries.itemsize == _SINGLE:
        for pair in unsigned[first:last].view(np.uint64):
            one[_slot(pair & np.uint64(0xFFFFFFFF), shift, entries)] += 1
            other[_slot(pair >> np.uint64(32), shift, entries)] += 1
    else:
        for i in range(first, last, 2):
            one[_slot(np.uint64(unsigned[i]), shift, entries)] += 1
            other[_slot(np.uint64(unsigned[i + 1]), shift, entries)] += 1
    if first:
        one[_slot(np.uint64(unsigned[0]), shift, entries)] += 1
    if last < bits.size:
        one[_slot(np.uint64(unsigned[last]), shift, entries)] += 1


@njit
def _slot(bits: Any, shift: Any, entries: Any) -> Any:
    """Return the bucket of a number, all of which are unsigned: an index that is not is checked for its sign."""
    return np.uint64(entries.dtype.type(bits + entries[bits >> shift])) >> shift


@njit
def _search(bits: Any, mask: Any, edges: Any, histogram: Any) -> None:
    """Do the same for any edges, by bisection."""
    mask = np.int64(mask)
    for i in range(bits.size):
        histogram[np.searchsorted(edges, bits[i] & mask)] += 1


@njit
def _decode(bits: Any, brain: bool, singles: Any, values: Any) -> None:
    """Write the float32 values of a block of bfloat16 or float16.

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
        # The upper exponent is that of infinity and NaN.
        singles[i] = (magnitude << 13) + ((112 if magnitude < _INFINITE else 224) << 23)
    for i in range(bits.size):
        magnitude = np.int32(bits[i]) & 0x7FFF
        # A subnormal is its integer times the smallest one. A float32 that is subnormal never occurs on the way.
        size = values[i] if magnitude >= _SMALLEST_NORMAL else np.float32(magnitude) * np.float32(2.0**-24)
        values[i] = size if bits[i] >= 0 else -size


@njit
def _tally(bits: Any, tallies: Any) -> None:
    """Count how often each number of half precision occurs."""
    one, other = tallies[0], tallies[1]
    whole = bits.size // 2 * 2
    for i in range(0, whole, 2):
        one[np.uint16(bits[i])] += 1
        other[np.uint16(bits[i + 1])] += 1
    for i in range(whole, bits.size):
        one[np.uint16(bits[i])] += 1


@njit
def _weigh(tallies: Any, limits: Any, brain: bool, table: Any, found: Any, scratch: Any) -> Any:
    """Add what was tallied, and forget it; return the extremes as ordered integers."""
    mask, infinite, vanishing, exploding = limits[0], limits[1], limits[3], limits[4]
    shift, cells, entries, edges = table
    sums, counts, local = found
    block, values = scratch
    least, most = np.int64(mask), ~np.int64(mask)
    for start in range(0, _HALVES, _BLOCK):
        numbers = tallies[0, start : start + _BLOCK]
        others = tallies[1, start : start + _BLOCK]
        seen = 0
        for i in range(_BLOCK):
            numbers[i] += others[i]
            seen += numbers[i]
        if not seen:
            continue
        for i in range(_BLOCK):
            block[i] = np.int16(start + i)
        _decode(block, brain, values.view(np.int32), values)
        for i in range(_BLOCK):
            number = np.int64(numbers[i])
            if not number:
                continue
            magnitude = np.int64(block[i]) & np.int64(mask)
            if magnitude < infinite:
                value = np.float64(values[i])
                sums[0] += number * value
                sums[1] += number * abs(value)
                sums[2] += number * (value * value)
                counts[0] += number
                counts[1] += number if magnitude == 0 else 0
                counts[2] += number if magnitude <= vanishing else 0
                counts[3] += number if magnitude > exploding else 0
                ordered = np.int64(block[i]) ^ ((np.int64(block[i]) >> 15) & np.int64(mask))
                least, most = min(least, ordered), max(most, ordered)
            if edges.size and cells:
                local[_slot(np.uint64(start + i), shift, entries)] += number
            elif edges.size:
                local[np.searchsorted(edges, magnitude)] += number
        numbers[:] = 0
        others[:] = 0
    return least, most


@njit
def _value(ordered: int, limits: Any, brain: bool, like: Any) -> float:
    """Return the number that an ordered integer stands for."""
    bits = np.empty(1, limits.dtype)
    bits[0] = ordered ^ ((ordered >> limits[2]) & limits[0])
    if bits.itemsize > _HALF:
        return np.float64(bits.view(like.dtype)[0])
    values = np.empty(1, np.float32)
    _decode(bits, brain, values.view(np.int32), values)
    return np.float64(values[0])


@njit
def _put(local: Any, packed: Any, row: int, columns: Any) -> None:
    """Add the counts of a run to the buckets of its row, where other threads may be adding, and forget them."""
    underflow, overflow, first = columns
    here = np.int64(packed.ctypes.data) + 8 * row * packed.shape[1]
    last = local.shape[1] - 1
    for i in range(last + 1):
        number = np.int64(local[0, i]) + local[1, i]
        if number:
            column = underflow if i == 0 else overflow if i == last else first + i - 1
            _add(here + 8 * column, number)
    local[:] = 0


def _make_statistics_loop(bits_type: "type[Any]", values_type: "type[Any]") -> "Callable[[Any], None]":
    """Return a loop that does tasks until none is left: it adds runs of numbers to the statistics of their rows.

    It is told of ``counter``: two zeros in the beginning, how many tasks were begun, and how many are done; of the address
    and row of each tensor; of tensor, first element and size of each of N runs; of the first run of each task, and N; of
    ``limits``: integers of the size of a number, the bits of magnitude, those of infinity, how far to shift the sign, up to
    which magnitude an element vanishes and above which it explodes; of the entries of cells and the bits of edges; of
    where to put three sums, minimum and maximum of each run; its finite, zero, vanishing and exploding elements; and of
    packed rows. Numbers are: half precision is bfloat16, how far to shift bits to get a cell, whether cells suffice, the
    width of packed rows, and their columns for what is not above the first edge, for what is above the last, and for the
    first bucket, which are not touched where there is no edge.

    Args:
        bits_type: How numbers are read.
        values_type: What bits are read as; float32 for half precision, which is decoded first.
    """
    entries_type = {np.int64: np.uint64, np.int32: np.uint32, np.int16: np.uint16}[bits_type]

    def scan(data: Any) -> None:
        args = carray(data, (27,), np.int64)
        counter, tasks = _row(args, 0, np.int64), _row(args, 3, np.int64)
        tensors, runs = _rows(args, 1, 2, np.int64), _rows(args, 2, 3, np.int64)
        limits, edges = _row(args, 4, bits_type), _row(args, 6, np.int64)
        entries = _row(args, 5, entries_type)
        sums, counts = _rows(args, 7, 5, np.float64), _rows(args, 8, 4, np.int64)
        packed = _rows(args, 9, args[23], np.int64)
        brain, shift, cells, columns = args[20] > 0, np.uint64(args[21]), args[22] > 0, (args[24], args[25], args[26])
        table = shift, cells, entries, edges
        like = np.empty(0, values_type)
        local = np.zeros((_HISTOGRAMS, edges.size + 1), np.int32)
        values = np.empty(_BLOCK, like.dtype)
        singles = values.view(np.int32)
        scratch = np.empty(_BLOCK, np.int16), np.empty(_BLOCK, np.float32)
        half = limits.itemsize == _HALF
        tallies = np.zeros((2, _HALVES if half and np.any(runs[:, 2] >= _MANY) else 0), np.int32)
        last = len(tasks) - 1
        task = _next_task(counter)
        while task < last:
            for run in range(tasks[task], tasks[task + 1]):
                tensor, first, size = runs[run, 0], runs[run, 1], runs[run, 2]
                address = tensors[tensor, 0] + first * limits.itemsize
                bits = carray(_pointer(address), (size,), limits.dtype)
                floats = carray(_pointer(address), (size,), like.dtype)
                least, most = np.int64(limits[0]), ~np.int64(limits[0])
                if half and size >= _MANY:
                    _tally(bits, tallies)
                    least, most = _weigh(tallies, limits, brain, table, (sums[run], counts[run], local[0]), scratch)
                    size = 0
                for start in range(0, size, _BLOCK):
                    stop = min(start + _BLOCK, size)
                    block = bits[start:stop]
                    if half:
                        these = values[: stop - start]
                        _decode(block, brain, singles, these)
                    else:
                        these = floats[start:stop]
                    low, high = _reduce(block, these, limits, sums[run], counts[run])
                    least, most = min(least, low), max(most, high)
                    if edges.size and cells:
                        _count(block, shift, entries, local)
                    elif edges.size:
                        _search(block, limits[0], edges, local[0])
                sums[run, 3] = _value(least, limits, brain, like) if least <= most else np.inf
                sums[run, 4] = _value(most, limits, brain, like) if least <= most else -np.inf
                if edges.size:
                    _put(local, packed, tensors[tensor, 1], columns)
            _task_done(counter)
            task = _next_task(counter)

    return scan


def _gather(
    work: "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]",
    found: "tuple[NDArray[np.float64], NDArray[np.int64]]",
    into: "tuple[NDArray[np.float64], NDArray[np.int64]]",
) -> None:
    """Add what was found in runs to what their rows have, in the order of runs."""
    tensors, runs, _tasks = work
    for run in range(len(runs)):
        row = tensors[runs[run, 0], 1]
        of_run, of_row = found[0][run], into[0][row]
        for i in range(3):
            of_row[i] += of_run[i]
        of_row[3] = min(of_row[3], of_run[3])
        of_row[4] = max(of_row[4], of_run[4])
        for i in range(4):
            into[1][row, i] += found[1][run, i]


@njit(fastmath={"reassoc", "nsz"})
def _square(values: Any) -> float:
    total = 0.0
    for i in range(values.size):
        total += np.float64(values[i]) * np.float64(values[i])
    return total


@njit(fastmath={"reassoc", "nsz"})
def _square_differences(values: Any, others: Any) -> float:
    total = 0.0
    for i in range(values.size):
        difference = np.float64(values[i]) - np.float64(others[i])
        total += difference * difference
    return total


def _make_squares_loop(bits_type: "type[Any]", values_type: "type[Any]") -> "Callable[[Any], None]":
    """Return a loop that does tasks until none is left: it adds up squares, of numbers or of differences.

    It is told of ``counter``, tensors, runs and tasks like `_make_statistics_loop`'s, but with the address of a copy rather than a row,
    0 where there is none; and of where to put the sum of each run. Numbers are: half precision is bfloat16, and whether to
    write copies; otherwise numbers are taken from those that there are.

    Args:
        bits_type: How numbers are read.
        values_type: What bits are read as.
    """

    def squares(data: Any) -> None:
        args = carray(data, (12,), np.int64)
        counter, tasks = _row(args, 0, np.int64), _row(args, 3, np.int64)
        tensors, runs = _rows(args, 1, 2, np.int64), _rows(args, 2, 3, np.int64)
        found = _row(args, 4, np.float64)
        brain, copies = args[10] > 0, args[11] > 0
        bits_like, like = np.empty(0, bits_type), np.empty(0, values_type)
        values, before = np.empty(_BLOCK, like.dtype), np.empty(_BLOCK, like.dtype)
        last = len(tasks) - 1
        task = _next_task(counter)
        while task < last:
            for run in range(tasks[task], tasks[task + 1]):
                size, offset = runs[run, 2], runs[run, 1] * bits_like.itemsize
                address, copy = tensors[runs[run, 0], 0], tensors[runs[run, 0], 1]
                bits = carray(_pointer(address + offset), (size,), bits_like.dtype)
                kept = carray(_pointer(copy + offset), (size if copy else 0,), bits_like.dtype)
                for start in range(0, size, _BLOCK):
                    stop = min(start + _BLOCK, size)
                    now = _values(bits[start:stop], brain, values)
                    if copies:
                        kept[start:stop] = bits[start:stop]
                    if copies or not kept.size:
                        found[run] += _square(now)
                    else:
                        found[run] += _square_differences(now, _values(kept[start:stop], brain, before))
            _task_done(counter)
            task = _next_task(counter)

    return squares


@njit
def _values(bits: Any, brain: bool, space: Any) -> Any:
    """Return the numbers of a block, decoded into the space where they are of half precision."""
    if bits.itemsize > _HALF:
        return bits.view(space.dtype)
    these = space[: bits.size]
    _decode(bits, brain, space.view(np.int32), these)
    return these
