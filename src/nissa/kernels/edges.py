"""Every count as a difference of two answers to one question: how many elements have ``|x| <= e``?

The magnitudes ``e`` for which it is asked are the edges: zero, the bucket boundaries, the thresholds, and the largest
finite number. Between two edges lies a slot, so putting each element into its slot answers all of them exactly.
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf, nextafter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.kernels.moments import Layout, Thresholds

_LARGEST = float(np.finfo(np.float64).max)
_EXPONENT_BITS = 11
_FRACTION_BITS = 52


@dataclass(frozen=True)
class Edges:
    """The edges of a layout and its thresholds.

    Args:
        layout: Decides the bucket boundaries.
        thresholds: Decide what counts as vanishing and exploding.
    """

    layout: "Layout"
    thresholds: "Thresholds"

    @cached_property
    def values(self) -> "NDArray[np.float64]":
        """The edges, shape ``(E,)``, ascending. Slot ``j`` holds what is above edge ``j - 1`` and not above edge ``j``."""
        bounds = self.layout.buckets.boundaries() if self.layout.buckets else np.empty(0)
        edges = np.unique(np.concatenate(([0.0, self._below_vanishing, self._exploding, _LARGEST], bounds)))
        return edges[edges >= 0]

    @cached_property
    def intervals(self) -> "NDArray[np.int64]":
        """Shape ``(2, C)``: the first slot of each count, and the slot after its last.

        Counts stand in the order of the packed row: zeros, vanishing, exploding, underflow, overflow, buckets.
        """
        bounds = self.layout.buckets.boundaries() if self.layout.buckets else np.zeros(1)
        overflows_above = bounds[-1] if self.layout.buckets else _LARGEST
        above = np.concatenate(([-1.0, -1.0, self._exploding, 0.0, overflows_above], bounds[:-1]))
        up_to = np.concatenate(([0.0, self._below_vanishing, _LARGEST, bounds[0], _LARGEST], bounds[1:]))
        return np.searchsorted(self.values, np.stack((above, up_to)), side="right")

    @cached_property
    def shift(self) -> int:
        """How far to shift the bits of a magnitude to get its cell.

        The bits of a float64 that is not negative ascend with its value, so that their upper part is a grid of cells.
        A quarter of the narrowest bucket makes it rare that a cell has more than one edge.
        """
        scale = self.layout.buckets.scale if self.layout.buckets else 0
        return _FRACTION_BITS - max(scale, 0) - 2

    @cached_property
    def first_slots(self) -> "NDArray[np.int32]":
        """Per cell, the slot of its smallest magnitude; the cells of infinity and NaN have the slot after the last edge."""
        return np.searchsorted(self.values, self._cells.view(np.float64), side="left").astype(np.int32)

    @cached_property
    def most_per_cell(self) -> int:
        """Edges in the fullest cell: an element is at most this many slots above the first one of its cell."""
        return int(np.bincount(self.values.view(np.int64) >> self.shift).max())

    @property
    def _cells(self) -> "NDArray[np.int64]":
        return np.arange(1 << (_EXPONENT_BITS + _FRACTION_BITS - self.shift), dtype=np.int64) << self.shift

    @property
    def _below_vanishing(self) -> float:
        # `|x| < t` is `|x| <= e` where `e` is the float64 just below `t`; below 0 where nothing vanishes.
        return nextafter(self.thresholds.vanishing, -inf)

    @property
    def _exploding(self) -> float:
        return min(self.thresholds.exploding, _LARGEST)
