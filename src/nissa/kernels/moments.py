"""Gradient statistics of parameters: packed layout of the kernels, and decoded form.

A kernel packs one row of int64 per parameter, so that a whole model is copied to the host at once:

====== ================== ======= ==========================================================================
column name               type    meaning
====== ================== ======= ==========================================================================
0      ``count``          int64   all elements, whatever their value
1      ``nonfinite``      int64   NaN and infinities; they are in ``count`` and here, and nowhere below
2      ``zeros``          int64   ``x == 0`` of either sign
3      ``vanishing``      int64   ``|x| < thresholds.vanishing``, zeros included
4      ``exploding``      int64   ``|x| > thresholds.exploding``
5      ``underflow``      int64   ``0 < |x|``, up to the lower bound of the first bucket; 0 without buckets
6      ``overflow``       int64   ``|x|`` above the upper bound of the last bucket; 0 without buckets
7      ``total``          float64 sum of the finite elements; 0 without any
8      ``abs_total``      float64 sum of their magnitudes; 0 without any
9      ``sum_of_squares`` float64 sum of their squares; 0 without any
10     ``minimum``        float64 smallest finite element; NaN without any
11     ``maximum``        float64 largest finite element; NaN without any
12     ``abs_max``        float64 largest finite magnitude; NaN without any
13...  ``buckets``        int64   elements per bucket of ``|x|``, absent without buckets
====== ================== ======= ==========================================================================

A float64 is stored as its bits. With buckets, every row satisfies
``count == nonfinite + zeros + underflow + sum(buckets) + overflow``. Buckets are those of the OTLP exponential
histogram (https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram).
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from nissa.errors import ConfigurationError
from nissa.kernels.buckets import FULL_RANGE, BucketRange, slot_of_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["BucketRange", "Column", "Layout", "Moments", "Thresholds", "decode", "encode", "merge", "ratio"]


class Column(IntEnum):
    """Column index of each number in a packed row; ``BUCKETS`` is the first bucket."""

    COUNT = 0
    NONFINITE = 1
    ZEROS = 2
    VANISHING = 3
    EXPLODING = 4
    UNDERFLOW = 5
    OVERFLOW = 6
    TOTAL = 7
    ABS_TOTAL = 8
    SUM_OF_SQUARES = 9
    MINIMUM = 10
    MAXIMUM = 11
    ABS_MAX = 12
    BUCKETS = 13


_COUNTS = tuple(column.name.lower() for column in Column if column < Column.TOTAL)
_FLOATS = tuple(column.name.lower() for column in Column if Column.TOTAL <= column < Column.BUCKETS)

# Merge operation of each field. `fmin` and `fmax` ignore NaN, which means that a row has no finite element.
_COMBINE: dict[str, np.ufunc] = {
    **dict.fromkeys((*_COUNTS, "total", "abs_total", "sum_of_squares", "buckets"), np.add),
    "minimum": np.fmin,
    "maximum": np.fmax,
    "abs_max": np.fmax,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of a packed row.

    Args:
        buckets: Range of the buckets; ``None`` omits buckets.
    """

    buckets: BucketRange | None = FULL_RANGE

    @property
    def width(self) -> int:
        """Number of columns."""
        return Column.BUCKETS + (self.buckets.size if self.buckets else 0)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Magnitudes beyond which a gradient element counts as vanishing or exploding.

    Args:
        vanishing: Elements below this magnitude count as vanishing.
        exploding: Elements above this magnitude count as exploding.

    Raises:
        ConfigurationError: A threshold is negative or NaN.
    """

    vanishing: float = 1e-7
    exploding: float = 1e3

    def __post_init__(self) -> None:
        for name, value in (("vanishing", self.vanishing), ("exploding", self.exploding)):
            if not value >= 0:
                raise ConfigurationError(f"The {name} threshold must be 0 or more, not {value!r}.")


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Statistics of P parameters, one row each; every array has shape ``(P,)``, ``buckets`` ``(P, size)``.

    Fields correspond to the columns of the same names. Derived values cover the finite elements only. An undefined
    value is NaN, never zero.
    """

    count: "NDArray[np.int64]"
    nonfinite: "NDArray[np.int64]"
    zeros: "NDArray[np.int64]"
    vanishing: "NDArray[np.int64]"
    exploding: "NDArray[np.int64]"
    underflow: "NDArray[np.int64]"
    overflow: "NDArray[np.int64]"
    total: "NDArray[np.float64]"
    abs_total: "NDArray[np.float64]"
    sum_of_squares: "NDArray[np.float64]"
    minimum: "NDArray[np.float64]"
    maximum: "NDArray[np.float64]"
    abs_max: "NDArray[np.float64]"
    buckets: "NDArray[np.int64] | None" = None
    bucket_range: BucketRange | None = None

    def __len__(self) -> int:
        return len(self.count)

    @property
    def finite(self) -> "NDArray[np.int64]":
        """Elements that are neither NaN nor infinite."""
        return self.count - self.nonfinite

    @property
    def mean(self) -> "NDArray[np.float64]":
        """Arithmetic mean."""
        return ratio(self.total, self.finite)

    @property
    def std(self) -> "NDArray[np.float64]":
        """Unbiased standard deviation; NaN below two elements.

        Its resolution is about ``1e-8`` of the mean, because it is computed from sums and not in a second pass.
        """
        squares = self.sum_of_squares - self.total * self.mean
        variance: NDArray[np.float64] = ratio(np.maximum(squares, 0.0), self.finite - 1)
        return np.sqrt(variance)

    @property
    def norm(self) -> "NDArray[np.float64]":
        """Euclidean (L2) norm."""
        return np.where(self.finite > 0, np.sqrt(self.sum_of_squares), np.nan)

    @property
    def global_norm(self) -> float:
        """L2 norm over all rows; NaN if no row has a finite element."""
        return float(np.sqrt(self.sum_of_squares.sum())) if self.finite.any() else float("nan")

    @property
    def zero_fraction(self) -> "NDArray[np.float64]":
        """Share of zeros among the finite elements."""
        return ratio(self.zeros, self.finite)

    @property
    def vanishing_fraction(self) -> "NDArray[np.float64]":
        """Share of vanishing elements among the finite elements."""
        return ratio(self.vanishing, self.finite)

    @property
    def exploding_fraction(self) -> "NDArray[np.float64]":
        """Share of exploding elements among the finite elements."""
        return ratio(self.exploding, self.finite)

    def quantile(self, q: "float | Sequence[float]") -> "NDArray[np.float64]":
        """Return the ``q`` quantile of ``|x|`` per row; NaN without finite elements or without buckets.

        For a sequence of Q quantiles the result has shape ``(Q, P)``; one call is faster than Q calls.

        It is the order statistic of the inverted CDF (``numpy.quantile(..., method="inverted_cdf")``), to the precision
        of its bucket: with ``gamma = 2**(2**-scale)`` the relative error is at most ``(gamma - 1) / (gamma + 1)``. That is
        4.4 % in the fine part of the default range, and a third in the rest of the range of float32. Zeros and the largest
        element are exact. A quantile outside the buckets, or in one of several octaves, is NaN.

        Raises:
            ValueError: ``q`` is not within 0 and 1.
        """
        levels = np.atleast_1d(np.asarray(q, dtype=np.float64))
        if not np.all((levels >= 0) & (levels <= 1)):
            raise ValueError(f"A quantile must be from 0 to 1, not {q!r}.")
        found = self._quantiles(levels[:, np.newaxis])
        return found if np.ndim(q) else found[0]

    def _quantiles(self, q: "NDArray[np.float64]") -> "NDArray[np.float64]":
        if self.buckets is None or self.bucket_range is None:
            return np.full((len(q), len(self)), np.nan)
        rank = np.maximum(np.ceil(self.finite * q), 1).astype(np.int64)
        slots = np.column_stack((self.zeros, self.underflow, self.buckets, self.overflow))
        value = self.bucket_range.representatives(slot_of_rank(slots, rank), self.abs_max)
        return np.where(rank < self.finite, value, self.abs_max)

    def fold(self, groups: "NDArray[np.intp]", size: int) -> "Moments":
        """Merge the rows of each group.

        Args:
            groups: Shape ``(P,)``: the group of each row, from 0 to ``size - 1``.
            size: Number of groups. A group without rows has counts and sums 0 and extremes NaN.

        Raises:
            ValueError: The shape of ``groups`` is wrong, or a group is out of range.
        """
        if np.shape(groups) != (len(self),) or (len(self) and not 0 <= np.min(groups) <= np.max(groups) < size):
            raise ValueError(f"Expected {len(self)} groups from 0 to {size - 1}.")
        folded: dict[str, Any] = {}
        for name, values in _arrays(self).items():
            empty = 0 if _COMBINE[name] is np.add else np.nan
            folded[name] = np.full((size, *values.shape[1:]), empty, dtype=values.dtype)
            _COMBINE[name].at(folded[name], groups, values)
        return Moments(**folded, bucket_range=self.bucket_range)

    def select(self, rows: "ArrayLike | slice") -> "Moments":
        """Return the rows selected by a slice, an index array or a boolean mask, in its order."""
        picked = rows if isinstance(rows, slice) else _index(rows)
        return Moments(
            **{name: values[picked] for name, values in _arrays(self).items()}, bucket_range=self.bucket_range
        )


def merge(a: Moments, b: Moments) -> Moments:
    """Merge two sets of statistics row by row: each row then covers the elements of both.

    Counts are exact; merging is commutative, and associative up to the rounding of the sums.

    Raises:
        ValueError: The numbers of rows or the bucket ranges differ.
    """
    if len(a) != len(b) or a.bucket_range != b.bucket_range:
        raise ValueError(f"Cannot merge {len(a)} rows of {a.bucket_range} with {len(b)} rows of {b.bucket_range}.")
    others = _arrays(b)
    merged: dict[str, Any] = {name: _COMBINE[name](values, others[name]) for name, values in _arrays(a).items()}
    return Moments(**merged, bucket_range=a.bucket_range)


def decode(packed: "NDArray[np.int64]", layout: Layout) -> Moments:
    """Decode packed rows.

    Args:
        packed: Shape ``(P, layout.width)``. The buckets of the result share its memory, because they are large.
        layout: Layout of the packed rows.

    Raises:
        ValueError: The rows do not have the layout's width or are not int64.
    """
    if packed.dtype != np.int64 or packed.ndim != 2 or packed.shape[1] != layout.width:  # noqa: PLR2004 - rows, columns
        raise ValueError(f"Expected int64 rows of {layout.width} columns, not {packed.dtype} {packed.shape}.")
    # Transpose, so that each column is contiguous: later code reads whole columns.
    columns = packed[:, : Column.BUCKETS].T.copy()
    numbers: dict[str, Any] = {name: columns[Column[name.upper()]] for name in _COUNTS}
    numbers |= {name: columns[Column[name.upper()]].view(np.float64) for name in _FLOATS}
    buckets = packed[:, Column.BUCKETS :] if layout.buckets else None
    return Moments(**numbers, buckets=buckets, bucket_range=layout.buckets)


def encode(moments: Moments, layout: Layout) -> "NDArray[np.int64]":
    """Pack rows, the inverse of :func:`decode`; returns shape ``(P, layout.width)``.

    Raises:
        ValueError: The bucket ranges of layout and rows differ.
    """
    if moments.bucket_range != layout.buckets:
        raise ValueError(f"Cannot pack buckets of {moments.bucket_range} as {layout.buckets}.")
    packed = np.empty((len(moments), layout.width), dtype=np.int64)
    for name, values in _arrays(moments).items():
        if name == "buckets":
            packed[:, Column.BUCKETS :] = values
        else:
            packed[:, Column[name.upper()]] = np.ascontiguousarray(values).view(np.int64)
    return packed


def _arrays(moments: Moments) -> "dict[str, NDArray[Any]]":
    """Return the arrays that are not None, by field name."""
    named = ((field.name, getattr(moments, field.name)) for field in fields(Moments))
    return {name: value for name, value in named if isinstance(value, np.ndarray)}


def _index(rows: "ArrayLike") -> "NDArray[Any]":
    """Return rows as an index array; an empty list selects no row (NumPy would convert it to floats)."""
    index = np.asarray(rows)
    return index if index.size else index.astype(np.intp)


def ratio(part: "NDArray[Any]", whole: "NDArray[Any]") -> "NDArray[np.float64]":
    """Return ``part / whole``; NaN where ``whole`` is not positive."""
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
