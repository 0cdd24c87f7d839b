"""Compiled loops of :mod:`nissa.kernels.cpu` and :mod:`nissa.kernels.squares`, over numbers at given addresses.

Numbers are compared by their bits. The bits of a magnitude, read as an integer, grow with the magnitude. Comparisons of
integers are therefore exact, also for subnormals, and infinity and NaN are above all finite numbers.

Several threads may execute a loop at the same time. The work is a list of runs (contiguous parts of a tensor), grouped
into tasks. Each thread claims the next task by an atomic addition, without the GIL. Floating-point results are stored per
run, so that they do not depend on which thread executed which task.

Names without an underscore are the interface. All compiled code is in this file, because numba renews its cache on disk
only if the file of the compiled function changes.
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

# Elements per block. Its bits and decoded values fit into the L1 cache.
_BLOCK = 2048
# Adjacent elements are often in the same bucket. With two histograms, an increment need not wait for the previous one.
_HISTOGRAMS = 2
# Most buckets of a run are empty. This many are skipped at once.
_SKIPPED = 16
_SMALLEST_NORMAL, _INFINITE = 0x400, 0x7C00  # bits of float16


# From this number of half-precision elements on, it is faster to count how often each of the 65,536 values occurs.
_MANY = 2**16
_HALVES = 2**16
_HALF, _SINGLE = 2, 4  # bytes


# By bytes per element: the integer type of its bits, and the type that they are decoded to.
_TYPES = {8: (np.int64, np.float64), 4: (np.int32, np.float32), 2: (np.int16, np.float32)}
_SIGNATURE = "void(voidptr)"


def statistics_loop(size: int, *, cache: bool) -> Any:
    """Return the compiled loop that fills rows of statistics, as a C function.

    Args:
        size: Bytes per element.
        cache: Cache the machine code on disk, beside this file or in the user's cache folder.

    Raises:
        RuntimeError: ``cache`` is set, and none of these folders is writable.
    """
    return cfunc(_SIGNATURE, cache=cache)(_make_statistics_loop(*_TYPES[size]))


def squares_loop(size: int, *, cache: bool) -> Any:
    """Return the compiled loop that sums squares; its arguments are those of `statistics_loop`."""
    return cfunc(_SIGNATURE, cache=cache)(_make_squares_loop(*_TYPES[size]))


def gather_loop(*, cache: bool) -> "Callable[..., None]":
    """Return the loop that adds the results of runs to rows; it is compiled at its first call from Python."""
    gather: Callable[..., None] = njit(nogil=True, cache=cache)(_gather)
    return gather


def argument_block(arrays: "Sequence[NDArray[Any]]", *numbers: int) -> "NDArray[np.int64]":
    """Return the argument of a loop: address and size of each array, then the numbers. The caller keeps the arrays alive."""
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


_pointer: Any = intrinsic(_typed_pointer)  # converts an address to a pointer
_add: Any = intrinsic(_typed_add)  # atomic addition to the int64 at an address; returns the previous value


@njit
def _row(args: Any, index: int, dtype: Any) -> Any:
    """Return an array of the argument block."""
    return carray(_pointer(args[2 * index]), (args[2 * index + 1],), dtype)


@njit
def _rows(args: Any, index: int, columns: int, dtype: Any) -> Any:
    """Return an array of the argument block as rows with a number of columns."""
    size = args[2 * index + 1]
    return carray(_pointer(args[2 * index]), (size // columns, columns), dtype)


@njit
def _next_task(counter: Any) -> Any:
    """Claim the next task and return its index."""
    return _add(np.int64(counter.ctypes.data), np.int64(1))


@njit
def _task_done(counter: Any) -> None:
    """Count a finished task."""
    _add(np.int64(counter.ctypes.data) + 8, np.int64(1))


# Additions may be reordered, so that the loop is vectorized. The other fast-math flags would break NaN and infinity.
@njit(fastmath={"reassoc", "nsz"})
def _reduce(bits: Any, values: Any, limits: Any, sums: Any, counts: Any) -> Any:
    """Add a block to sums and counts; return its minimum and maximum as ordered integers."""
    # Numba widens integers to 64 bits. Cast each back to the size of an element, so that more fit into a vector register.
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
    """Return an integer that grows with the number: all bits of negative numbers except the sign are inverted."""
    number = type(mask)
    return number(bits ^ number(number(bits >> top) & mask))


@njit
def _reduce_finite(bits: Any, values: Any, limits: Any, sums: Any, counts: Any) -> Any:
    """Add the finite elements of a block that also has NaN or infinite ones."""
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
    """Count the elements of a block per bucket, with a table lookup; requires at most one edge per cell.

    A cell is the set of numbers with the same upper bits. Cells of negative numbers have their own entries, which remove
    the sign by wrapping around.
    """
    one, other = histograms[0], histograms[1]
    unsigned = bits.view(entries.dtype)
    # Read float32 in pairs, as one aligned 64-bit load.
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
    """Return the bucket of a number. All operands are unsigned, because numba checks signed indices for wraparound."""
    return np.uint64(entries.dtype.type(bits + entries[bits >> shift])) >> shift


@njit
def _search(bits: Any, mask: Any, edges: Any, histogram: Any) -> None:
    """Count the elements of a block per bucket by binary search, for any edges."""
    mask = np.int64(mask)
    for i in range(bits.size):
        histogram[np.searchsorted(edges, bits[i] & mask)] += 1


@njit
def _count_block(bits: Any, limits: Any, table: Any, zeros: Any, histograms: Any) -> None:
    """Count the elements of a block per bucket; ``zeros`` is the number of zeros in the histograms and the block."""
    shift, cells, entries, edges = table
    if edges.size and cells:
        _count(bits, shift, entries, histograms)
        if limits[5] and np.int64(histograms[0, 0]) + histograms[1, 0] != zeros:
            _recount(bits, limits, edges, histograms[0])
    elif edges.size:
        _search(bits, limits[0], edges, histograms[0])


@njit
def _recount(bits: Any, limits: Any, edges: Any, histogram: Any) -> None:
    """Move the smallest subnormals of a block from the bucket of zeros to their own ones."""
    for i in range(bits.size):
        magnitude = bits[i] & limits[0]
        if 0 < magnitude < limits[5]:
            histogram[0] -= 1
            histogram[np.searchsorted(edges, np.int64(magnitude))] += 1


@njit
def _decode(bits: Any, brain: bool, singles: Any, values: Any) -> None:
    """Decode a block of bfloat16 or float16 to float32.

    Args:
        bits: int16.
        brain: Whether the elements are bfloat16.
        singles: Memory of ``values``, viewed as int32.
        values: Output, float32, of the size of ``bits``.
    """
    if brain:
        for i in range(bits.size):
            singles[i] = np.int32(bits[i]) << 16
        return
    for i in range(bits.size):
        magnitude = np.int32(bits[i]) & 0x7FFF
        # Rebias the exponent. The larger offset maps infinity and NaN to those of float32.
        singles[i] = (magnitude << 13) + ((112 if magnitude < _INFINITE else 224) << 23)
    for i in range(bits.size):
        magnitude = np.int32(bits[i]) & 0x7FFF
        # A subnormal is an integer multiple of the smallest one. No intermediate float32 is subnormal.
        size = values[i] if magnitude >= _SMALLEST_NORMAL else np.float32(magnitude) * np.float32(2.0**-24)
        values[i] = size if bits[i] >= 0 else -size


@njit
def _tally(bits: Any, tallies: Any) -> None:
    """Count how often each of the 65,536 half-precision values occurs."""
    one, other = tallies[0], tallies[1]
    whole = bits.size // 2 * 2
    for i in range(0, whole, 2):
        one[np.uint16(bits[i])] += 1
        other[np.uint16(bits[i + 1])] += 1
    for i in range(whole, bits.size):
        one[np.uint16(bits[i])] += 1


@njit
def _weigh(tallies: Any, limits: Any, brain: bool, table: Any, found: Any, scratch: Any) -> Any:
    """Add the tallied values to sums and counts, and reset the tallies; return minimum and maximum as ordered integers."""
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
    """Return the number of an ordered integer, the inverse of `_ordered`."""
    bits = np.empty(1, limits.dtype)
    bits[0] = ordered ^ ((ordered >> limits[2]) & limits[0])
    if bits.itemsize > _HALF:
        return np.float64(bits.view(like.dtype)[0])
    values = np.empty(1, np.float32)
    _decode(bits, brain, values.view(np.int32), values)
    return np.float64(values[0])


@njit
def _put(local: Any, last: int, packed: Any, row: int, columns: Any) -> None:
    """Add the bucket counts of a run to its row atomically, because other threads add to the same row, and reset them."""
    underflow, overflow, first = columns
    here = np.int64(packed.ctypes.data) + 8 * row * packed.shape[1]
    for start in range(0, last + 1, _SKIPPED):
        occupied = np.int32(0)
        for i in range(start, start + _SKIPPED):
            occupied |= local[0, i] | local[1, i]
        if not occupied:
            continue
        for i in range(start, min(start + _SKIPPED, last + 1)):
            number = np.int64(local[0, i]) + local[1, i]
            if number:
                column = underflow if i == 0 else overflow if i == last else first + i - 1
                _add(here + 8 * column, number)
    local[:] = 0


def _make_statistics_loop(bits_type: "type[Any]", values_type: "type[Any]") -> "Callable[[Any], None]":
    """Return a loop that executes tasks until none is left: it computes statistics of runs and bucket counts of rows.

    Arrays of the argument block, in order:

    0. ``counter``: number of tasks begun and of tasks done, both 0 at the start.
    1. Tensors: address and row of each.
    2. Runs: tensor, first element and size of each of the N runs.
    3. Tasks: first run of each, then N.
    4. ``limits``: mask of the magnitude bits, bits of infinity, shift of the sign, largest vanishing magnitude, largest
       magnitude that does not explode, end of the magnitudes that cells cannot distinguish from zero (0 if they
       distinguish all); integers of the size of an element.
    5. Entries of the cells.
    6. Bits of the edges.
    7. Output per run: three sums, minimum and maximum.
    8. Output per run: finite, zero, vanishing and exploding elements.
    9. Output: packed rows.

    Numbers of the argument block: whether half precision is bfloat16; shift from bits to cells; whether cells suffice;
    width of a packed row; its columns of the underflow, the overflow and the first bucket, unused without edges.

    Args:
        bits_type: Integer type of an element.
        values_type: Floating-point type of an element; float32 for half precision, which is decoded first.
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
        local = np.zeros((_HISTOGRAMS, (edges.size // _SKIPPED + 1) * _SKIPPED), np.int32)
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
                    _count_block(block, limits, table, counts[run, 1], local)
                sums[run, 3] = _value(least, limits, brain, like) if least <= most else np.inf
                sums[run, 4] = _value(most, limits, brain, like) if least <= most else -np.inf
                if edges.size:
                    _put(local, edges.size, packed, tensors[tensor, 1], columns)
            _task_done(counter)
            task = _next_task(counter)

    return scan


def _gather(
    work: "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]",
    found: "tuple[NDArray[np.float64], NDArray[np.int64]]",
    into: "tuple[NDArray[np.float64], NDArray[np.int64]]",
) -> None:
    """Add the results of runs to their rows, always in the order of runs, so that sums are reproducible."""
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
    """Return a loop that executes tasks until none is left: it sums squares of elements, or of differences from a copy.

    Arrays of the argument block: counter, tensors, runs and tasks as for `_make_statistics_loop`, except that a tensor has
    the address of its copy (0 without one) instead of a row; then the output, one sum per run. Numbers: whether half
    precision is bfloat16, and whether to write the copies. Otherwise existing copies are subtracted.

    Args:
        bits_type: Integer type of an element.
        values_type: Floating-point type of an element.
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
    """Return the values of a block; half precision is decoded into ``space``."""
    if bits.itemsize > _HALF:
        return bits.view(space.dtype)
    these = space[: bits.size]
    _decode(bits, brain, space.view(np.int32), these)
    return these
