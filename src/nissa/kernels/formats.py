"""Integer representation of each dtype, for exact comparison and bucketing of magnitudes.

The bits of a magnitude, read as an integer, ascend with the magnitude. Integer comparisons therefore replace float
comparisons. This also holds for subnormals; infinities and NaN are above all finite numbers.

A cell is a range of bits with at most one edge. Each cell has a table entry. Adding the entry to the bits of an element
carries into the upper bits exactly if the element is above the edge. The upper bits are then the number of edges below
the element, from one addition.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from nissa.kernels.buckets import fractions

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A cell is at most 2**-2 of a bucket, so that it rarely contains more than one edge.
_QUARTER_BUCKET = 2
_DOUBLE_FRACTION = 52


class Format(NamedTuple):
    """Bit format of a dtype: integer type of its bits, float type of its values, and fraction bits."""

    bits: type[Any]
    values: type[Any]
    fraction: int  # bits of it
    brain: bool = False

    @property
    def mask(self) -> int:
        """Mask of the magnitude, which is all bits except the sign."""
        return int(np.iinfo(self.bits).max)

    @property
    def infinite(self) -> int:
        """Bits of infinity."""
        return self.mask >> self.fraction << self.fraction

    def floor(self, magnitudes: "NDArray[np.float64]") -> "NDArray[np.int64]":
        """Return the bits of the largest finite number that does not exceed each magnitude; -1 for negative input."""
        held = np.dtype(f"f{np.dtype(self.bits).itemsize}" if not self.brain else "f4")
        capped = np.clip(magnitudes, 0.0, float(np.finfo(held).max))
        near = capped.astype(held)
        near = np.where(near.astype(np.float64) > capped, np.nextafter(near, held.type(0)), near)
        bits = near.view(f"i{held.itemsize}").astype(np.int64) >> (16 if self.brain else 0)
        return np.where(magnitudes < 0, -1, bits)

    def shift(self, scale: int) -> int:
        """Return the right shift from bits to cells; a cell is about a quarter of a bucket of this scale."""
        return max(self.fraction - max(scale, 0) - _QUARTER_BUCKET, 0)


FORMATS = {
    torch.float64: Format(np.int64, np.float64, 52),
    torch.float32: Format(np.int32, np.float32, 23),
    torch.float16: Format(np.int16, np.float32, 10),
    torch.bfloat16: Format(np.int16, np.float32, 7, brain=True),
}


class Cells(NamedTuple):
    """Cells of an octave: the first and last fraction bits of each, the number of edges below it, and the edge inside it.

    An edge at the upper end of a cell belongs to the next cell. A cell without an edge has its upper end instead.
    """

    starts: "NDArray[np.int64]"
    ends: "NDArray[np.int64]"
    below: "NDArray[np.int64]"
    inside: "NDArray[np.int64]"


def octave_edges(scale: int, form: Format) -> "NDArray[np.int64]":
    """Return the fraction bits of the edges of an octave, ascending from 0; all octaves of normal numbers have the same."""
    of_double = np.array(fractions(scale), dtype=np.int64)
    edges: NDArray[np.int64] = (of_double >> (_DOUBLE_FRACTION - form.fraction)) - (1 << form.fraction)
    return edges


def octave_cells(scale: int, form: Format, shift: int) -> Cells:
    """Return the cells of an octave; ``shift`` is the right shift from bits to cells, which have at most one edge each."""
    edges = octave_edges(scale, form)
    starts = np.arange(1 << (form.fraction - shift), dtype=np.int64) << shift
    ends = starts + ((1 << shift) - 1)
    below, through = np.searchsorted(edges, starts), np.searchsorted(edges, ends)
    inside = np.where(through > below, np.append(edges, 0)[below], ends)
    return Cells(starts, ends, below, inside)


def octave(scale: int, form: Format) -> "NDArray[np.int64]":
    """Return the table entries of one octave.

    The edges are fraction bits only. A power of two has no edge below it, because it belongs to the previous octave.
    """
    shift = form.shift(scale)
    cells = octave_cells(max(scale, 0), form, shift)
    return (cells.below << shift) + (cells.ends - cells.inside) - cells.starts
