"""Buckets of magnitudes as in the OTLP exponential histogram, with exact boundaries.

At ``scale`` s, bucket ``i`` covers ``(2**(i / 2**s), 2**((i + 1) / 2**s)]``, its upper bound included
(https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram). Most bounds are irrational.
Each is stored as the largest float64 that does not exceed it. For a float64 ``x``, ``x <= stored`` is then equivalent
to ``x <= bound``. float32, float16 and bfloat16 are subsets of float64, so every element falls into its exact bucket.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from math import isqrt
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_SCALES = range(-4, 9)  # the scales of Prometheus native histograms
_EXPONENTS = range(-1022, 1024)  # of normal float64
_FRACTION_BITS = 52


def _buckets_below(exponent: int, scale: int) -> int:
    """Return the number of buckets between 1 and ``2**exponent``; negative for negative exponents."""
    return exponent << scale if scale >= 0 else exponent >> -scale


@dataclass(frozen=True, slots=True)
class BucketRange:
    """Buckets that cover ``(2**min_exponent, 2**max_exponent]``, and optionally coarser ones on both sides of it.

    The default has 512 buckets. A slot is the underflow, a bucket, or the overflow, in ascending order.

    Args:
        scale: Each octave has ``2**scale`` buckets; for a negative scale, each bucket has ``2**-scale`` octaves.
        min_exponent: Exponent of the lower bound of the first bucket.
        max_exponent: Exponent of the upper bound of the last bucket.
        within: A range of at most one bucket per octave that contains this one; it provides the buckets outside of it.

    Raises:
        ConfigurationError: The scale is not supported, the range is not a whole number of buckets, or the outer range
            does not contain it.
    """

    scale: int = 3
    min_exponent: int = -48
    max_exponent: int = 16
    within: "BucketRange | None" = None
    _hash: int = field(init=False, repr=False, compare=False)
    _size: int = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        return self._hash

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise ConfigurationError(f"The bucket scale must be from -4 to 8, not {self.scale}.")
        if not _EXPONENTS[0] <= self.min_exponent < self.max_exponent <= _EXPONENTS[-1]:
            raise ConfigurationError(
                f"Bucket exponents must ascend within {_EXPONENTS[0]} and {_EXPONENTS[-1]}, "
                f"not from {self.min_exponent} to {self.max_exponent}."
            )
        octaves = 1 << max(-self.scale, 0)
        if self.min_exponent % octaves or self.max_exponent % octaves:
            raise ConfigurationError(f"At bucket scale {self.scale}, exponents must be multiples of {octaves}.")
        if self.within is not None and not self._is_within(self.within):
            raise ConfigurationError(
                "The outer bucket range must be coarser, have a scale of 0 or less, and extend the inner one on both sides by "
                f"whole buckets: {self.within} does not for exponents {self.min_exponent} to {self.max_exponent}."
            )
        # Computed once, because a range is a key of caches and its size is needed for each sample.
        object.__setattr__(self, "_hash", hash((self.scale, self.min_exponent, self.max_exponent, self.within)))
        object.__setattr__(self, "_size", self._all_sizes())

    def _is_within(self, outer: "BucketRange") -> bool:
        octaves = 1 << max(-outer.scale, 0)
        return (
            outer.scale <= 0
            and outer.scale < self.scale
            and outer.min_exponent < self.min_exponent
            and self.max_exponent < outer.max_exponent
            and self.min_exponent % octaves == self.max_exponent % octaves == 0
        )

    @property
    def offset(self) -> int:
        """OTLP index of the first bucket of this scale."""
        return _buckets_below(self.min_exponent, self.scale)

    @property
    def inner_size(self) -> int:
        """Number of buckets of this scale."""
        return _buckets_below(self.max_exponent, self.scale) - self.offset

    @property
    def before(self) -> int:
        """Number of coarser buckets below the first one of this scale."""
        outer = self.within
        return outer.before + _buckets_below(self.min_exponent, outer.scale) - outer.offset if outer else 0

    @property
    def size(self) -> int:
        """Number of buckets of all scales."""
        return self._size

    def _all_sizes(self) -> int:
        outer = self.within
        if outer is None:
            return self.inner_size
        replaced = _buckets_below(self.max_exponent, outer.scale) - _buckets_below(self.min_exponent, outer.scale)
        return self.inner_size + outer.size - replaced

    def boundaries(self) -> "NDArray[np.float64]":
        """Return the ``size + 1`` bounds, ascending and read-only: bucket ``i`` is ``(bounds[i], bounds[i + 1]]``.

        Each is the largest float64 that does not exceed the true bound.
        """
        return _boundaries(self)

    def slot_indexes(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        """Return the scale and the OTLP index at that scale of each slot, read-only, shape ``(size + 2,)``.

        Underflow and overflow have the neighbours of the first and the last bucket. If the range covers the normal
        numbers down to ``2**-1008``, these neighbours are exact, except that subnormals of float64 are rounded up to
        normal numbers, as the OTLP data model permits.
        """
        return _slot_indexes(self)

    def representatives(self, slots: "NDArray[np.intp]", abs_max: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return the value of each row that represents its slot with the smallest worst-case relative error.

        For a bucket ``(lower, upper]`` it is ``2 * lower * upper / (lower + upper)``. No element exceeds
        ``abs_max``, which therefore limits the upper bound. The value is NaN without a lower bound, and if the bounds
        differ by more than an octave and by more than a bucket of this scale.

        Args:
            slots: Shape ``(P,)``: 0 for zeros, 1 for the underflow, then the buckets, then the overflow.
            abs_max: Shape ``(P,)``: the largest magnitude of the row.
        """
        bounds = self.boundaries()
        lower = np.concatenate(([0.0, 0.0], bounds))[np.minimum(slots, self.size + 2)]
        upper = np.concatenate(([0.0], bounds, [np.inf]))[np.minimum(slots, self.size + 2)]
        upper = np.minimum(upper, abs_max)
        narrow = (lower > 0) & (upper / _widest(self.scale) <= lower)
        # This form of the mean cannot overflow for a huge upper bound.
        balanced = lower * (2 / (1 + lower / np.where(narrow, upper, 1.0)))
        return np.where(slots == 0, 0.0, np.where(narrow, balanced, np.nan))


FULL_RANGE: Final = BucketRange(within=BucketRange(0, -160, 128, within=BucketRange(-4, -1008, 1008)))
"""Buckets of all numbers: eight per octave in ``(2**-48, 2**16]``, one per octave in the rest of the range of float32,
including its subnormals, and one per 16 octaves in the rest of the normal numbers of float64."""


def slot_of_rank(counts: "NDArray[np.int64]", rank: "NDArray[np.int64]") -> "NDArray[np.intp]":
    """Return the slot that contains the element of a rank, per row; the number of slots if a row has too few elements.

    The rows are concatenated and cumulated once, so that one ``searchsorted`` call serves all rows.

    Args:
        counts: Shape ``(P, S)``: elements per slot, in ascending order.
        rank: Shape ``(Q, P)``: ranks, starting at 1.
    """
    rows, slots = counts.shape
    through = counts.ravel().cumsum()
    before = np.concatenate(([0], through[slots - 1 :: slots]))[:-1]
    found: NDArray[np.intp] = np.minimum(np.searchsorted(through, rank + before) - slots * np.arange(rows), slots)
    return found


def _widest(scale: int) -> float:
    """Return the largest ratio of two bounds between which a representative is meaningful; allow for their rounding."""
    return float(2.0 ** max(1.0, 2.0**-scale)) * (1 + 1e-9)


@lru_cache(maxsize=32)
def _boundaries(span: BucketRange) -> "NDArray[np.float64]":
    indices = range(span.offset, span.offset + span.inner_size + 1)
    if span.scale >= 0:
        within = fractions(span.scale)
        steps = len(within)
        bounds = [np.ldexp(float(within[i % steps]), i // steps - _FRACTION_BITS) for i in indices]
    else:
        bounds = [np.ldexp(1.0, i << -span.scale) for i in indices]
    if span.within is not None:
        outer = _boundaries(span.within).tolist()
        below, above = (e for e in outer if e < bounds[0]), (e for e in outer if e > bounds[-1])
        bounds = [*below, *bounds, *above]
    return _frozen(np.array(bounds, dtype=np.float64))


@lru_cache(maxsize=32)
def _slot_indexes(span: BucketRange) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    scales = np.full(span.inner_size + 2, span.scale, dtype=np.int64)
    indexes = np.arange(span.offset - 1, span.offset + span.inner_size + 1, dtype=np.int64)
    if span.within is not None:
        outer = _slot_indexes(span.within)
        below = span.before + 1  # and the underflow
        above = len(outer[0]) - (span.size + 2 - below - span.inner_size)
        scales, indexes = (
            np.concatenate((of_outer[:below], own[1:-1], of_outer[above:]))
            for of_outer, own in zip(outer, (scales, indexes), strict=True)
        )
    return _frozen(scales), _frozen(indexes)


def _frozen(array: "NDArray[T]") -> "NDArray[T]":
    array.setflags(write=False)
    return array


def fractions(scale: int) -> list[int]:
    """Return ``floor(2**(j / 2**scale) * 2**52)`` for each bucket ``j`` of an octave, in integer arithmetic.

    The floor is the root of order ``2**scale`` of ``2**(j + 52 * 2**scale)``, taken as ``scale`` square roots:
    the floor of a square root depends only on the floor of its argument.
    """
    steps = 1 << scale
    roots = []
    for j in range(steps):
        root = 1 << (j + _FRACTION_BITS * steps)
        for _ in range(scale):
            root = isqrt(root)
        roots.append(root)
    return roots
