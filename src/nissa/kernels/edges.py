"""Edges: the magnitudes that separate all counts, so that one histogram provides every count exactly.

Every count is a difference of two cumulative counts, each the number of elements with ``|x| <= e`` for an edge ``e``.
The edges are zero, the bucket boundaries, the thresholds, and the largest finite number. A slot is the interval between
two neighbouring edges.
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
    """Edges of a layout and its thresholds.

    Args:
        layout: Defines the bucket boundaries.
        thresholds: Magnitudes that count as vanishing and exploding.
    """

    layout: "Layout"
    thresholds: "Thresholds"

    @cached_property
    def values(self) -> "NDArray[np.float64]":
        """Edges in ascending order, shape ``(E,)``; slot ``j`` is the interval ``(edge[j - 1], edge[j]]``."""
        bounds = self.layout.buckets.boundaries() if self.layout.buckets else np.empty(0)
        edges = np.unique(np.concatenate(([0.0, self._below_vanishing, self._exploding, _LARGEST], bounds)))
        return edges[edges >= 0]

    @cached_property
    def intervals(self) -> "NDArray[np.int64]":
        """First slot of each count and the slot after its last one, shape ``(2, C)``.

        Counts are in the order of the packed row: zeros, vanishing, exploding, underflow, overflow, buckets.
        """
        bounds = self.layout.buckets.boundaries() if self.layout.buckets else np.zeros(1)
        overflows_above = bounds[-1] if self.layout.buckets else _LARGEST
        above = np.concatenate(([-1.0, -1.0, self._exploding, 0.0, overflows_above], bounds[:-1]))
        up_to = np.concatenate(([0.0, self._below_vanishing, _LARGEST, bounds[0], _LARGEST], bounds[1:]))
        return np.searchsorted(self.values, np.stack((above, up_to)), side="right")

    @cached_property
    def shift(self) -> int:
        """Right shift that converts the bits of a magnitude to its cell.

        The bits of a nonnegative float64 ascend with its value, so that their upper part is a grid of cells. A cell is
        a quarter of the narrowest bucket, so that few cells contain more than one edge.
        """
        scale = self.layout.buckets.scale if self.layout.buckets else 0
        return _FRACTION_BITS - max(scale, 0) - 2

    @cached_property
    def first_slots(self) -> "NDArray[np.int32]":
        """Slot of the smallest magnitude of each cell; infinity and NaN have the slot after the last edge."""
        return np.searchsorted(self.values, self._cells.view(np.float64), side="left").astype(np.int32)

    @cached_property
    def most_per_cell(self) -> int:
        """Largest number of edges in a cell, which bounds the comparisons after the table lookup."""
        return int(np.bincount(self.values.view(np.int64) >> self.shift).max())

    @property
    def _cells(self) -> "NDArray[np.int64]":
        return np.arange(1 << (_EXPONENT_BITS + _FRACTION_BITS - self.shift), dtype=np.int64) << self.shift

    @property
    def _below_vanishing(self) -> float:
        # `|x| < t` equals `|x| <= e` where `e` is the next float64 below `t`. For `t` = 0 it is negative: nothing
        # vanishes.
        return nextafter(self.thresholds.vanishing, -inf)

    @property
    def _exploding(self) -> float:
        return min(self.thresholds.exploding, _LARGEST)
