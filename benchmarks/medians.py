"""Median with its 95 % interval, robust against a few disturbed rounds."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from benchmarks.steps.statistics import Estimate

RESAMPLES: Final = 4000


def median(values: Sequence[float]) -> Estimate:
    """Return the median and the bootstrap's percentile interval; deterministic.

    Args:
        values: One number per round, at least one. With fewer than ten the interval is too narrow.
    """
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(0, len(array), (RESAMPLES, len(array)))
    low, high = np.quantile(np.median(array[chosen], axis=1), (0.025, 0.975))
    return Estimate(float(np.median(array)), float(low), float(high))
