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


def entries(edges: "NDArray[np.int64]", shift: int, cells: int) -> "NDArray[np.int64] | None":
    """Return the table entry of each cell, or None if a cell other than the first contains more than one edge.

    An edge at the upper end of a cell belongs to the next cell and does not count. If the first cell contains several
    edges, its entry ignores them: all its numbers are counted as zeros, see :func:`uncounted`.

    Args:
        edges: Bits of the edges, ascending.
        shift: Right shift from bits to cells.
        cells: Number of cells.
    """
    starts = np.arange(cells, dtype=np.int64) << shift
    ends = starts + ((1 << shift) - 1)
    first: NDArray[np.int64] = np.searchsorted(edges, starts)
    up_to = np.searchsorted(edges, ends)
    if uncounted(edges, shift):
        up_to[0] = 0
    if np.any(up_to - first > 1):
        return None
    inside = np.where(up_to > first, np.append(edges, 0)[first], ends)
    added: NDArray[np.int64] = (first << shift) + (ends - inside) - starts
    return added


def uncounted(edges: "NDArray[np.int64]", shift: int) -> int:
    """Return the end of the first cell if its numbers must be counted separately, otherwise 0.

    The first cell contains zero and the smallest subnormals. Each octave of these can have an edge.
    """
    return 1 << shift if np.searchsorted(edges, (1 << shift) - 1) > 1 else 0


def octave(scale: int, form: Format) -> "NDArray[np.int64]":
    """Return the table entries of one octave; all octaves of normal numbers have the same ones.

    The edges are fraction bits only. A power of two has no edge below it, because it belongs to the previous octave.
    """
    edges = (np.array(fractions(max(scale, 0)), dtype=np.int64) >> (_DOUBLE_FRACTION - form.fraction)) - (
        1 << form.fraction
    )
    shift = form.shift(scale)
    found = entries(edges, shift, 1 << (form.fraction - shift))
    assert found is not None  # noqa: S101 - four cells per bucket suffice at every scale
    return found
