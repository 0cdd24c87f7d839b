"""Estimates with 95 % intervals from paired blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np

TWO_SIDED = 0.975

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit; ``factor`` is above zero."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def extra(watched: Sequence[float], bare: Sequence[float], turns: Sequence[float] | None = None) -> Estimate:
    """Return the relative increase from ``bare`` to ``watched``.

    A ratio of sums, since what happens in one block of many, such as an export, is a part of the cost; its standard error
    is that of a ratio estimator (Cochran, "Sampling Techniques", chapter 6), with Student's t for as few pairs as there are.
    Consecutive pairs may be correlated. If turns are passed, the interval is therefore the wider one of two: that of pairs,
    and that of whole turns as clusters of pairs.

    Args:
        watched: One number per pair.
        bare: The other number of each pair; positive.
        turns: Turn of each pair.
    """
    ours, theirs = np.asarray(watched, dtype=np.float64), np.asarray(bare, dtype=np.float64)
    ratio = float(ours.sum() / theirs.sum())
    residuals = (ours - ratio * theirs) / theirs.mean()
    half = _half(residuals, len(residuals))
    if turns is not None:
        _, turn = np.unique(np.asarray(turns), return_inverse=True)
        half = max(half, _half(np.bincount(turn, residuals), len(residuals)))
    return Estimate(ratio - 1, ratio - 1 - half, ratio - 1 + half)


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean."""
    array = np.asarray(values, dtype=np.float64)
    value, half = float(array.mean()), _half(array - array.mean(), len(array))
    return Estimate(value, value - half, value + half)


def _half(residuals: Array, pairs: int) -> float:
    """Return half the width of the interval of a mean over pairs, from residuals of pairs, or their sums over turns."""
    count = len(residuals)
    if count < 2:  # noqa: PLR2004 - one says nothing of how they differ
        return inf
    from scipy.stats import t  # noqa: PLC0415 - it takes a second, and the pages of the reference need only `Estimate`

    return float(t.ppf(TWO_SIDED, count - 1)) * sqrt(count / (count - 1) * float((residuals**2).sum())) / pairs


def times(more: Estimate, less: Estimate) -> Estimate:
    """Return the ratio of ``more`` to ``less``, two independent estimates of non-negative costs.

    The interval is Fieller's: all factors f for which ``more`` - f · ``less`` does not differ significantly from zero. It has
    no upper end if ``less`` does not differ significantly from zero. Its ends are not negative, because costs are not. If
    ``less`` is significantly below zero, the ratio is unknown.
    """
    if less.high < 0:
        return Estimate(inf, 0.0, inf)
    value = max(0.0, more.value) / less.value if less.value > 0 else inf
    bounded = less.low > 0 and isfinite(more.half)
    return Estimate(value, _lower(more, less), _upper(more, less) if bounded else inf)


def _lower(more: Estimate, less: Estimate) -> float:
    if more.value <= more.half or not isfinite(less.half):
        return 0.0
    return (more.value**2 - more.half**2) / (more.value * less.value + _root(more, less))


def _upper(more: Estimate, less: Estimate) -> float:
    return max(0.0, (more.value * less.value + _root(more, less)) / (less.value**2 - less.half**2))


def _root(more: Estimate, less: Estimate) -> float:
    product = (more.value**2 - more.half**2) * (less.value**2 - less.half**2)
    return sqrt(max(0.0, (more.value * less.value) ** 2 - product))
