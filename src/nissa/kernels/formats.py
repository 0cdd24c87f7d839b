"""How numbers of each dtype are compared and put into buckets as integers, exactly.

The bits of a magnitude are an integer that ascends with it, so that every comparison may be one of integers: the same for
subnormals, and with infinities and NaN above all the rest.

A cell is a range of bits. Where it has at most one edge, one addition tells on which side of the edge an element is: the
entry of a cell is such that adding it to the bits carries into the upper bits exactly where the element is above the
edge, which makes them the number of edges below.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from nissa.kernels.buckets import fractions

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A cell is at most this part of a bucket, as a power of two.
_QUARTER_BUCKET = 2
_DOUBLE_FRACTION = 52


class Format(NamedTuple):
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

    def shift(self, scale: int) -> int:
        """Return how far to shift bits to get a cell, which is about a quarter of a bucket of this scale."""
        return max(self.fraction - max(scale, 0) - _QUARTER_BUCKET, 0)


FORMATS = {
    torch.float64: Format(np.int64, np.float64, 52),
    torch.float32: Format(np.int32, np.float32, 23),
    torch.float16: Format(np.int16, np.float32, 10),
    torch.bfloat16: Format(np.int16, np.float32, 7, brain=True),
}


def entries(edges: "NDArray[np.int64]", shift: int, cells: int) -> "NDArray[np.int64] | None":
    """Return what to add to the bits in each cell, or nothing where a cell has too many edges for that.

    An edge at the upper end of a cell counts for those above. Elsewhere, only one fits.

    Args:
        edges: Bits, ascending.
        shift: From bits to cells.
        cells: How many there are.
    """
    starts = np.arange(cells, dtype=np.int64) << shift
    ends = starts + ((1 << shift) - 1)
    first: NDArray[np.int64] = np.searchsorted(edges, starts)
    up_to = np.searchsorted(edges, ends)
    if np.any(up_to - first > 1):
        return None
    inside = np.where(up_to > first, np.append(edges, 0)[first], ends)
    added: NDArray[np.int64] = (first << shift) + (ends - inside) - starts
    return added


def octave(scale: int, form: Format) -> "NDArray[np.int64]":
    """Return the entries of one octave, whose edges are those of every octave of numbers that are not subnormal.

    The bits are those of the fraction alone: a power of two has none below it, since it belongs to the octave before.
    """
    edges = (np.array(fractions(max(scale, 0)), dtype=np.int64) >> (_DOUBLE_FRACTION - form.fraction)) - (
        1 << form.fraction
    )
    shift = form.shift(scale)
    found = entries(edges, shift, 1 << (form.fraction - shift))
    assert found is not None  # noqa: S101 - four cells to a bucket are enough, whatever the scale
    return found
