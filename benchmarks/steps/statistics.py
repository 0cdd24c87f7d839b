"""Ratios with intervals, from rounds that were run in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with its 95 % interval."""

    value: float
    low: float
    high: float


def median(values: Sequence[float], resamples: int = 4000) -> Estimate:
    """Return the median over rounds and the bootstrap's percentile interval; the same for the same values."""
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(0, len(array), (resamples, len(array)))
    low, high = np.quantile(np.median(array[chosen], axis=1), (0.025, 0.975))
    middle = float(np.median(array))
    return Estimate(middle, min(float(low), middle), max(float(high), middle))
