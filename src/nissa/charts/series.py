"""Numbers over time, and fewer of them that look the same."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Values = NDArray[np.float64]

LEAST: Final = 4
"""Points that thinning leaves at least: an end, a low, a high, an end."""


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers over time.

    Args:
        name: What people read; may hold anything.
        times: Shape (N,), nanoseconds since the Unix epoch, ascending.
        values: Shape (N,); NaN and infinities are drawn apart, never as numbers.
        steps: Shape (N,), the step at each time, NaN where it is unknown; None where no step is.
        group: What it is chosen or hidden with, such as its environment.
        hue: Which colour of the palette, modulo its length.
        sparse: Few points that each deserve a mark, such as one per epoch.
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
        """The values that are numbers."""
        return self.values[np.isfinite(self.values)]


def thin(series: Series, most: int) -> Series:
    """Return a series of at most ``most`` of its points, at least ``LEAST``.

    Neighbours share a bucket, of which the lowest and the highest point stay, and one that is not finite in place of
    the lowest; the first and the last point stay too. So every spike shows, and every point shown was measured.
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
