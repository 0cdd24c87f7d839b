"""Device code of :mod:`nissa.kernels.triton`: two Triton kernels over numbers at given addresses.

:func:`scan` reads each number once. A program processes one chunk of a tensor, stores the chunk's reductions and adds its
bucket counts to those of the tensor. Counts are integers, so that their sum does not depend on the order. :func:`pack`
then adds the chunks of a tensor, always in the same order, and writes its row.

Numbers are compared by their bits, see :mod:`nissa.kernels.formats`. Tiles start at multiples of 16 bytes, so that a
thread loads 16 bytes at once. The few numbers of a tile outside the tensor are replaced by NaN, which is excluded from
all sums and intervals.
"""

import triton
import triton.language as tl

# Reductions of a chunk, as float64; counts are exact in it.
TOTAL, ABS_TOTAL, SQUARES, LEAST, MOST, FINITE, ZEROS, VANISHING, EXPLODING, LOW = map(tl.constexpr, range(10))
PARTS = 10
_CHUNKS: tl.constexpr = tl.constexpr(512)  # chunks added per iteration
_SLICE: tl.constexpr = tl.constexpr(1024)  # columns of a row written per iteration


# Triton must not specialise on these arguments, else it would compile again for some of their values.
_SCAN_NUMBERS = ["first", "chunks", "tensors", "vanishing", "exploding", "low", "high", "lowest"]
_PACK_NUMBERS = ["chunks", "tensors", "zeros_vanish"]


@triton.jit(do_not_specialize=_SCAN_NUMBERS)
def scan(
    row_of,  # int32 (chunks,): tensor of each chunk
    rows,  # int64 (4, P): first chunk, number of chunks, size, number of implicit zeros
    places,  # int64 (3, P): address of the first tile; offsets of the first element and of the end, in elements
    scale,  # float32 (1,): divisor of the numbers, if SCALED
    cells,  # int (cells per octave,): see formats.octave
    octaves,  # int32 (2048,): see triton.outer_buckets
    parts,  # float64 (PARTS, chunks)
    counts,  # int64 (P, SIZE + OUTER)
    first,  # number of chunks before this launch
    chunks,
    tensors,
    vanishing,  # thresholds as bits
    exploding,
    low,  # bounds of the fine buckets, as bits
    high,
    lowest,  # lower bound of all buckets, as bits
    KIND: tl.constexpr,  # bits per number: 64, 32, 16, or -16 for bfloat16
    WIDE: tl.constexpr,  # compare as float64 instead of float32
    SCALED: tl.constexpr,
    SIZE: tl.constexpr,  # number of fine buckets, or 0
    OUTER: tl.constexpr,  # number of coarse buckets
    BEFORE: tl.constexpr,  # those below the fine ones
    POWER: tl.constexpr,  # number of fine buckets, rounded up to a power of two
    OUTER_POWER: tl.constexpr,  # power of two above the number of coarse buckets
    SHARED: tl.constexpr,  # count in shared memory
    SCALE: tl.constexpr,  # scale of the buckets
    SHIFT: tl.constexpr,  # shift from bits to cells
    OFFSET: tl.constexpr,  # OTLP index of the first bucket
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    THREADS: tl.constexpr,
    TOGETHER: tl.constexpr,  # numbers per load of a thread
):
    """Compute the reductions and bucket counts of one chunk."""
    chunk = first + tl.program_id(0)
    row = tl.load(row_of + chunk)
    before = tl.load(places + tensors + row)
    behind = tl.load(places + 2 * tensors + row)
    start = (chunk - tl.load(rows + row)).to(tl.int64) * CHUNK
    numbers = _pointer(tl.load(places + row), KIND)

    total = tl.zeros((THREADS,), tl.float64)
    abs_total = tl.zeros((THREADS,), tl.float64)
    squares = tl.zeros((THREADS,), tl.float64)
    least = tl.full((THREADS,), float("inf"), tl.float64 if WIDE else tl.float32)
    most = tl.full((THREADS,), float("-inf"), tl.float64 if WIDE else tl.float32)
    n_finite = tl.zeros((THREADS,), tl.int32)
    n_zeros = tl.zeros((THREADS,), tl.int32)
    n_vanishing = tl.zeros((THREADS,), tl.int32)
    n_beyond = tl.zeros((THREADS,), tl.int32)
    n_low = tl.zeros((THREADS,), tl.int32)
    n_outside = tl.zeros((THREADS,), tl.int32)
    histogram = tl.zeros((POWER,), tl.int32)

    TILE: tl.constexpr = ROWS * THREADS * TOGETHER
    within = tl.reshape(tl.arange(0, TILE), (ROWS, THREADS, TOGETHER))
    stop = tl.maximum(tl.minimum(start + CHUNK, behind), start)
    for tile in range(start, stop, TILE):
        inside = (tile >= before) & (tile + TILE <= behind)
        raw = _load(numbers + tile, within, before - tile, behind - tile, inside, KIND)
        value = _decode(raw, scale, KIND, SCALED, WIDE)
        magnitude = _magnitude(value, WIDE)
        finite = magnitude < _infinite(WIDE)
        exact = tl.where(finite, value, 0.0).to(tl.float64)
        total += _sum(exact)
        abs_total += _sum(tl.abs(exact))
        squares += _sum(exact * exact)
        least = tl.minimum(least, tl.min(tl.min(tl.where(finite, value, float("inf")), axis=2), axis=0))
        most = tl.maximum(most, tl.max(tl.max(tl.where(finite, value, float("-inf")), axis=2), axis=0))
        n_finite += _sum(finite.to(tl.int32))
        n_zeros += _sum((magnitude == 0).to(tl.int32))
        n_vanishing += _sum((magnitude <= vanishing).to(tl.int32))
        n_beyond += _sum((magnitude > exploding).to(tl.int32))
        if SIZE:
            n_low += _sum((magnitude <= lowest).to(tl.int32))
            bucket = _bucket(magnitude, cells, WIDE, SCALE, SHIFT, OFFSET)
            covered = (magnitude > low) & (magnitude <= high)
            if SHARED or OUTER:
                n_outside += _sum((covered == 0).to(tl.int32))
            if SHARED:
                # Other numbers are counted in the first bucket and subtracted below, which is cheaper than a mask.
                histogram += tl.histogram(tl.reshape(tl.where(covered, bucket, 0), (TILE,)), POWER)
            else:
                one = tl.full((ROWS, THREADS, TOGETHER), 1, tl.int64)
                column = row.to(tl.int64) * (SIZE + OUTER) + BEFORE + bucket
                tl.atomic_add(counts + column, one, mask=covered, sem="relaxed")

    at = parts + chunk
    tl.store(at + TOTAL * chunks, tl.sum(total))
    tl.store(at + ABS_TOTAL * chunks, tl.sum(abs_total))
    tl.store(at + SQUARES * chunks, tl.sum(squares))
    tl.store(at + LEAST * chunks, tl.min(least).to(tl.float64))
    tl.store(at + MOST * chunks, tl.max(most).to(tl.float64))
    tl.store(at + FINITE * chunks, tl.sum(n_finite).to(tl.float64))
    tl.store(at + ZEROS * chunks, tl.sum(n_zeros).to(tl.float64))
    tl.store(at + VANISHING * chunks, tl.sum(n_vanishing).to(tl.float64))
    # Non-finite numbers and the padding of a tile are above every threshold, so subtract them.
    others = tl.cdiv(stop - start, TILE) * TILE - tl.sum(n_finite)
    tl.store(at + EXPLODING * chunks, (tl.sum(n_beyond) - others).to(tl.float64))
    tl.store(at + LOW * chunks, tl.sum(n_low).to(tl.float64))
    if SIZE and SHARED:
        slot = tl.arange(0, POWER)
        histogram -= tl.where(slot == 0, tl.sum(n_outside), 0)
        bucket = counts + row.to(tl.int64) * (SIZE + OUTER) + BEFORE + slot
        tl.atomic_add(bucket, histogram.to(tl.int64), mask=histogram > 0, sem="relaxed")
    if OUTER:  # noqa: SIM102 - constant when compiled; the other condition is not
        # Few chunks have numbers in coarse buckets. Read these again, so that the loop above does not become slower.
        if tl.sum(n_outside) - others - tl.sum(n_low) > 0:
            coarse = tl.zeros((OUTER_POWER,), tl.int32)
            for tile in range(start, stop, TILE):
                again = _load(numbers + tile, within, before - tile, behind - tile, False, KIND)
                outer = _outer_bucket(_decode(again, scale, KIND, SCALED, WIDE), octaves, OUTER, WIDE)
                coarse += tl.histogram(tl.reshape(outer, (TILE,)), OUTER_POWER)
            index = tl.arange(0, OUTER_POWER)
            column = row.to(tl.int64) * (SIZE + OUTER) + tl.where(index < BEFORE, index, index + SIZE)
            tl.atomic_add(counts + column, coarse.to(tl.int64), mask=(coarse > 0) & (index < OUTER), sem="relaxed")


@triton.jit(do_not_specialize=_PACK_NUMBERS)
def pack(
    rows,  # as in scan
    parts,
    counts,
    packed,  # int64 (P, WIDTH)
    chunks,
    tensors,
    zeros_vanish,  # 1 if zeros count as vanishing
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Add the chunks of one tensor and write its row, in the layout of :mod:`nissa.kernels.moments`."""
    row = tl.program_id(0)
    first = tl.load(rows + row)
    behind = first + tl.load(rows + tensors + row)
    size = tl.load(rows + 2 * tensors + row)
    implicit = tl.load(rows + 3 * tensors + row)

    total = _added(parts + TOTAL * chunks, first, behind)
    abs_total = _added(parts + ABS_TOTAL * chunks, first, behind)
    squares = _added(parts + SQUARES * chunks, first, behind)
    finite = _added(parts + FINITE * chunks, first, behind).to(tl.int64) + implicit
    zeros = _added(parts + ZEROS * chunks, first, behind).to(tl.int64) + implicit
    vanishing = _added(parts + VANISHING * chunks, first, behind).to(tl.int64) + implicit * zeros_vanish
    exploding = _added(parts + EXPLODING * chunks, first, behind).to(tl.int64)
    low = _added(parts + LOW * chunks, first, behind).to(tl.int64) + implicit
    least = _least(parts + LEAST * chunks, 1.0, first, behind)
    most = -_least(parts + MOST * chunks, -1.0, first, behind)
    if implicit > 0:
        least = tl.minimum(least, 0.0)
        most = tl.maximum(most, 0.0)
    none = finite == 0
    least = tl.where(none, float("nan"), least)
    most = tl.where(none, float("nan"), most)
    largest = tl.where(none, float("nan"), tl.maximum(most, -least))

    out = packed + row.to(tl.int64) * WIDTH
    covered = implicit * 0
    if SIZE:
        for start in range(0, SIZE, _SLICE):
            column = start + tl.arange(0, _SLICE)
            found = tl.load(counts + row.to(tl.int64) * SIZE + column, mask=column < SIZE, other=0)
            tl.store(out + 13 + column, found, mask=column < SIZE)
            covered += tl.sum(found)
    tl.store(out, size)
    tl.store(out + 1, size - finite)
    tl.store(out + 2, zeros)
    tl.store(out + 3, vanishing)
    tl.store(out + 4, exploding)
    tl.store(out + 5, low - zeros if SIZE else covered)
    tl.store(out + 6, finite - low - covered if SIZE else covered)
    tl.store(out + 7, total.to(tl.int64, bitcast=True))
    tl.store(out + 8, abs_total.to(tl.int64, bitcast=True))
    tl.store(out + 9, squares.to(tl.int64, bitcast=True))
    tl.store(out + 10, least.to(tl.int64, bitcast=True))
    tl.store(out + 11, most.to(tl.int64, bitcast=True))
    tl.store(out + 12, largest.to(tl.int64, bitcast=True))


@triton.jit
def _sum(values):
    """Return the sum per thread, which needs no communication between threads."""
    return tl.sum(tl.sum(values, axis=2), axis=0)


@triton.jit
def _pointer(address, KIND: tl.constexpr):
    """Return an address as a pointer to integers, aligned for loads of several numbers."""
    if KIND == 64:
        numbers = address.to(tl.pointer_type(tl.int64))
    elif KIND == 32:
        numbers = address.to(tl.pointer_type(tl.int32))
    else:
        numbers = address.to(tl.pointer_type(tl.int16))
    return tl.multiple_of(numbers, 16)


@triton.jit
def _load(numbers, within, before, behind, inside, KIND: tl.constexpr):
    """Return the bits of a tile, with NaN outside the tensor. Tiles fully inside the tensor are loaded without a mask."""
    if inside:
        raw = tl.load(numbers + within)
    else:
        other = 0x7FF8000000000000 if KIND == 64 else 0x7FC00000 if KIND == 32 else 0x7E00 if KIND == 16 else 0x7FC0
        raw = tl.load(numbers + within, mask=(within >= before) & (within < behind), other=other)
    return raw


@triton.jit
def _decode(raw, scale, KIND: tl.constexpr, SCALED: tl.constexpr, WIDE: tl.constexpr):
    """Return the values as float32 or float64, divided by ``scale`` if SCALED."""
    if KIND == 64:
        value = raw.to(tl.float64, bitcast=True)
    elif KIND == 32:
        value = raw.to(tl.float32, bitcast=True)
    elif KIND == 16:
        value = raw.to(tl.float16, bitcast=True).to(tl.float32)
    else:
        value = (raw.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    if SCALED:
        by = tl.load(scale)
        value = value / by.to(tl.float64) if KIND == 64 else tl.div_rn(value, by.to(tl.float32))
    return value.to(tl.float64) if WIDE else value


@triton.jit
def _magnitude(value, WIDE: tl.constexpr):
    """Return the bits of the magnitude of a value."""
    if WIDE:
        magnitude = value.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
    else:
        magnitude = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return magnitude


@triton.jit
def _infinite(WIDE: tl.constexpr):
    """Return the bits of infinity."""
    return 0x7FF0000000000000 if WIDE else 0x7F800000


@triton.jit
def _bucket(magnitude, cells, WIDE: tl.constexpr, SCALE: tl.constexpr, SHIFT: tl.constexpr, OFFSET: tl.constexpr):
    """Return the index of the bucket of normal numbers, counted from the first bucket. Subnormals give any index.

    Adding the entry of a cell to the fraction bits carries into the number of edges of the octave that are below.
    """
    FRACTION: tl.constexpr = 52 if WIDE else 23
    fraction = magnitude & ((1 << FRACTION) - 1)
    octave = (magnitude >> FRACTION) - (1023 if WIDE else 127)
    if SCALE > 0:
        below = (fraction + tl.load(cells + (fraction >> SHIFT))) >> SHIFT
        bucket = (octave << SCALE) + below
    elif SCALE == 0:
        bucket = octave + (fraction != 0).to(magnitude.dtype)
    else:
        bucket = (octave + (fraction != 0).to(magnitude.dtype) - 1 >> -SCALE) + 1
    return (bucket - (OFFSET + 1)).to(tl.int32)


@triton.jit
def _outer_bucket(value, octaves, OUTER: tl.constexpr, WIDE: tl.constexpr):
    """Return the coarse bucket of numbers, counted without the fine buckets; OUTER for numbers without one."""
    finite = _magnitude(value, WIDE) < _infinite(WIDE)
    # As float64, subnormals of float32 have an exponent of their own.
    magnitude = _magnitude(tl.where(finite, value, 0.0).to(tl.float64), True)
    octave = tl.where(magnitude > 0, (magnitude - 1) >> 52, 0)  # the upper bound of an octave is included
    bucket = tl.load(octaves + octave)
    return tl.where(bucket >= 0, bucket, OUTER)


@triton.jit
def _added(part, first, behind):
    """Return the sum of a reduction over the chunks of a tensor."""
    found = tl.zeros((_CHUNKS,), tl.float64)
    for start in range(first, behind, _CHUNKS):
        chunk = start + tl.arange(0, _CHUNKS)
        found += tl.load(part + chunk, mask=chunk < behind, other=0.0)
    return tl.sum(found)


@triton.jit
def _least(part, sign, first, behind):
    """Return the minimum of a reduction over the chunks of a tensor; with ``sign`` -1 that of the negated values."""
    found = tl.full((_CHUNKS,), float("inf"), tl.float64)
    for start in range(first, behind, _CHUNKS):
        chunk = start + tl.arange(0, _CHUNKS)
        these = tl.load(part + chunk, mask=chunk < behind, other=0.0) * sign
        found = tl.minimum(found, tl.where(chunk < behind, these, float("inf")))
    return tl.min(found)


@triton.jit(do_not_specialize=["tensors"])
def add_digests(
    row_of,  # int64 (chunks,): tensor of each chunk
    places,  # int64 (3, P): address, number of bytes, first chunk
    digests,  # int64 (P,)
    tensors,
    CHUNK: tl.constexpr,
):
    """Add the lanes of one chunk to the digest of its tensor, see :mod:`nissa.kernels.digest_reference`."""
    chunk = tl.program_id(0).to(tl.int64)
    row = tl.load(row_of + chunk)
    address = tl.load(places + row)
    size = tl.load(places + tensors + row)
    start = (chunk - tl.load(places + 2 * tensors + row)) * CHUNK
    place = start + tl.arange(0, CHUNK)
    whole = size // 8
    lanes = tl.load(address.to(tl.pointer_type(tl.int64)) + place, mask=place < whole, other=0)
    # The last lane may be a part of one, whose bytes are loaded one by one.
    rest = size - whole * 8
    of_byte = tl.arange(0, 8)
    behind = tl.load(address.to(tl.pointer_type(tl.uint8)) + whole * 8 + of_byte, mask=of_byte < rest, other=0)
    last = tl.sum(behind.to(tl.int64) << (8 * of_byte).to(tl.int64))
    lanes = tl.where((place == whole) & (rest > 0), last, lanes)
    z = lanes.to(tl.uint64, bitcast=True) + (place + 1).to(tl.uint64, bitcast=True) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = (z ^ (z >> 31)).to(tl.int64, bitcast=True)
    inside = place < whole + (rest > 0).to(tl.int64)
    tl.atomic_add(digests + row, tl.sum(tl.where(inside, z, 0)), sem="relaxed")
