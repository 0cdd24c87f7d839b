"""Series of numbers over time, and downsampling that preserves their visible shape."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Values = NDArray[np.float64]

LEAST: Final = 4
"""Smallest number of points after thinning: first, minimum, maximum, last."""


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers over time.

    Args:
        name: Display name; may contain any characters, so it must be escaped before plotly draws it.
        times: Shape (N,), nanoseconds since the Unix epoch, ascending.
        values: Shape (N,); NaN and infinities are drawn separately.
        steps: Shape (N,), the optimizer step at each time, NaN if unknown; None if all are unknown.
        group: Environment filter that shows or hides the series.
        hue: Index into the colour palette, modulo its length.
        sparse: Draw a marker at each point; for series with few points, such as one per epoch.
    """

    name: str
    times: Times
    values: Values
    steps: Values | None = None
    group: str = ""
    hue: int = 0
    sparse: bool = False

    @property
    def finite(self) -> Values:
        """The finite values."""
        return self.values[np.isfinite(self.values)]


def thin(series: Series, most: int) -> Series:
    """Downsample a series to at most ``most`` points, but not below ``LEAST``.

    Neighbouring points form buckets. Each bucket keeps its minimum and maximum; a value that is not finite replaces the
    minimum. The first and the last point are kept. Spikes therefore stay visible, and every point drawn was measured.
    """
    most = max(most, LEAST)
    if len(series.values) <= most:
        return series
    kept = _kept(series.values, most)
    return replace(
        series,
        times=series.times[kept],
        values=series.values[kept],
        steps=None if series.steps is None else series.steps[kept],
    )


def averaged(series: Series, most: int) -> Series:
    """Return the means of at most ``most`` stretches of equally many points, each at the time of its last point.

    Values that are not finite are left out of a mean; a stretch of nothing else is NaN.
    """
    count = min(most, len(series.values))
    bounds = np.linspace(0, len(series.values), count + 1).astype(np.int64)
    finite = np.isfinite(series.values)
    sums = np.add.reduceat(np.where(finite, series.values, 0.0), bounds[:-1])
    counts = np.add.reduceat(finite.astype(np.int64), bounds[:-1])
    with np.errstate(invalid="ignore"):
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    last = bounds[1:] - 1
    steps = None if series.steps is None else series.steps[last]
    return replace(series, times=series.times[last], values=means, steps=steps)


def _kept(values: Values, most: int) -> NDArray[np.int64]:
    last = len(values) - 1
    bounds = np.linspace(1, last, (most - 2) // 2 + 1).astype(np.int64)
    chosen = {0, last}
    for low, high in pairwise(bounds):
        if high > low:
            chosen |= _extremes(values, int(low), int(high))
    return np.array(sorted(chosen), dtype=np.int64)


def _extremes(values: Values, low: int, high: int) -> set[int]:
    bucket = values[low:high]
    finite = np.isfinite(bucket)
    if not finite.any():
        return {low}
    largest = low + int(np.argmax(np.where(finite, bucket, -np.inf)))
    if not finite.all():
        return {largest, low + int(np.argmin(finite))}
    return {largest, low + int(np.argmin(bucket))}
