"""Estimates with 95 % intervals, from blocks that were run in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from scipy.stats import t

TWO_SIDED = 0.975


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Estimate":
        """Return it in another unit; ``factor`` is above zero."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def extra(watched: Sequence[float], bare: Sequence[float]) -> Estimate:
    """Return how much more ``watched`` is than ``bare``, as a fraction of ``bare``.

    A ratio of sums, since what happens in one block of many, such as an export, is a part of the cost; its standard error
    is that of a ratio estimator (Cochran, "Sampling Techniques", chapter 6), with Student's t for as few pairs as there are.

    Args:
        watched: One number per pair.
        bare: The other of each pair; positive.
    """
    ours, theirs = np.asarray(watched, dtype=np.float64), np.asarray(bare, dtype=np.float64)
    ratio = float(ours.sum() / theirs.sum())
    return _around(ratio - 1, (ours - ratio * theirs) / theirs.mean())


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean."""
    array = np.asarray(values, dtype=np.float64)
    return _around(float(array.mean()), array - array.mean())


def _around(value: float, residuals: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Estimate:
    count = len(residuals)
    if count < 2:  # noqa: PLR2004 - one pair says nothing of its spread
        return Estimate(value, -inf, inf)
    half = float(t.ppf(TWO_SIDED, count - 1)) * sqrt(float((residuals**2).sum()) / (count - 1) / count)
    return Estimate(value, value - half, value + half)


def times(more: Estimate, less: Estimate) -> Estimate:
    """Return how many times ``less`` is in ``more``, where both have an interval.

    The ends are those of the worst case, upper end by lower end, so that the interval is rather too wide. It has no upper
    end where nothing tells ``less`` from zero, and a value of infinity where it was not above zero.
    """
    return Estimate(
        more.value / less.value if less.value > 0 else inf,
        max(0.0, more.low) / less.high if less.high > 0 else inf,
        more.high / less.low if less.low > 0 else inf,
    )
