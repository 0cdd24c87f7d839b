"""Convert exponential histograms to the share of elements per bucket and time interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nissa.charts.distribution import Band
from nissa.recordings import Distribution, DistributionStream

TAIL: Final = 0.001
"""Share of the smallest elements that is left out of the chart."""


EXPONENTS: Final = (-1_022.0, 1_023.0)
"""Range of the binary exponents of normal doubles, which bounds of buckets are limited to."""

FINEST: Final = 4
"""Finest scale of an exponential histogram that is drawn: 2**4 = 16 buckets per power of two."""


@dataclass(frozen=True, slots=True)
class _Gain:
    """Counts of a time interval: ``counts[i]`` elements fell into bucket ``first + i`` at ``scale``."""

    start: int
    end: int
    scale: int
    first: int
    counts: NDArray[np.int64]

    def indices(self, scale: int) -> NDArray[np.int64]:
        """Return the bucket indices at an equal or coarser scale; each step down merges pairs of buckets."""
        found: NDArray[np.int64] = (self.first + np.arange(len(self.counts))) >> (self.scale - scale)
        return found


def band_of(stream: DistributionStream, most_columns: int, most_rows: int) -> Band | None:
    """Return the shares of a stream; None if all its elements are zero."""
    return _band(_gains(stream), most_columns, most_rows)


def total_of(streams: Sequence[DistributionStream], most_columns: int, most_rows: int) -> Band | None:
    """Return the shares of several streams together; every element has the same weight."""
    return _band([gain for stream in streams for gain in _gains(stream)], most_columns, most_rows)


def _gains(stream: DistributionStream) -> list[_Gain]:
    """Return the increase of the counts per point; a stream with a new start time begins at zero."""
    if not stream.cumulative:
        return [_gain(point.start, point, None) for point in stream.points]
    first = [_gain(point.start, point, None) for point in stream.points[:1]]
    rest = [
        _gain(after.start, after, None) if after.start != before.start else _gain(before.time, after, before)
        for before, after in pairwise(stream.points)
    ]
    return first + rest


def _gain(start: int, point: Distribution, before: Distribution | None) -> _Gain:
    scale = min(FINEST, point.scale if before is None else min(point.scale, before.scale))
    # Both points are converted to the coarser of their scales: an SDK may lower the scale between two exports, and
    # counts can only be subtracted bucket by bucket.
    first, counts = _at(point, scale)
    if before is not None and len(before.counts):
        earlier, taken = _at(before, scale)
        low = min(first, earlier) if len(counts) else earlier
        counts = np.pad(counts, (first - low if len(counts) else 0, max(0, earlier + len(taken) - first - len(counts))))
        counts[earlier - low : earlier - low + len(taken)] -= taken
        first = low
    return _Gain(start, point.time, scale, first, np.maximum(counts, 0))


def _at(point: Distribution, scale: int) -> tuple[int, NDArray[np.int64]]:
    """Return the index of a point's first bucket at a coarser scale, and the counts per bucket."""
    if not len(point.counts):
        return 0, np.zeros(0, dtype=np.int64)
    indices = (point.offset + np.arange(len(point.counts))) >> (point.scale - scale)
    return int(indices[0]), _summed(indices - indices[0], point.counts)


def _summed(indices: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.zeros(int(indices[-1]) + 1, dtype=np.int64)
    np.add.at(found, indices, counts)
    return found


def _band(gains: Sequence[_Gain], most_columns: int, most_rows: int) -> Band | None:
    gains = [gain for gain in gains if gain.counts.any() and gain.end > gain.start]
    if not gains:
        return None
    scale, low, high = _range(gains, most_rows)
    edges = _edges(gains, most_columns)
    counts, totals = np.zeros((high - low + 1, len(edges) - 1)), np.zeros(len(edges) - 1)
    for gain in gains:
        column = min(int(np.searchsorted(edges, gain.end, side="left")) - 1, len(edges) - 2)
        totals[column] += gain.counts.sum()
        rows = gain.indices(scale) - low
        inside = (rows >= 0) & (gain.counts > 0)
        np.add.at(counts[:, column], rows[inside], gain.counts[inside])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals > 0, counts / totals, np.nan)
    bounds = np.exp2(np.clip(np.arange(low, high + 2) / 2.0**scale, *EXPONENTS))
    return Band(edges, None, bounds, shares)


def _range(gains: Sequence[_Gain], most_rows: int) -> tuple[int, int, int]:
    """Return the finest scale that needs at most ``most_rows`` buckets, and the first and last bucket.

    The smallest elements, a share of ``TAIL``, are left out. They spread over many orders of magnitude and would
    compress the rest of the chart.
    """
    scale = min(gain.scale for gain in gains)
    indices = np.concatenate([gain.indices(scale) for gain in gains])
    counts = np.concatenate([gain.counts for gain in gains])
    order = np.argsort(indices[counts > 0], kind="stable")
    occupied, below = indices[counts > 0][order], np.cumsum(counts[counts > 0][order].astype(np.float64))
    low, high = int(occupied[np.searchsorted(below, TAIL * below[-1])]), int(occupied[-1])
    while high - low + 1 > most_rows:
        scale, low, high = scale - 1, low >> 1, high >> 1
    return scale, low, high


def _edges(gains: Sequence[_Gain], most_columns: int) -> NDArray[np.int64]:
    """Return the column edges: one column per export, or several neighbouring exports per column if there are many."""
    ends = np.unique([gain.end for gain in gains])
    columns = min(len(ends), most_columns)
    last = (np.arange(1, columns + 1) * len(ends)) // columns - 1
    return np.concatenate([[min(gain.start for gain in gains)], ends[last]]).astype(np.int64)


LEVELS: Final = (0.01, 0.5, 0.99)
"""Quantiles that are estimated from the shares if no quantiles were exported."""


def quantiles_of(band: Band) -> list[tuple[float, NDArray[np.int64], NDArray[np.float64]]]:
    """Estimate quantiles of each column from its buckets; return level, times (column centres) and values."""
    below = np.nancumsum(band.shares, axis=0) + (1 - np.nansum(band.shares, axis=0))
    middles = band.edges[:-1] + (band.edges[1:] - band.edges[:-1]) // 2
    centres = np.sqrt(band.bounds[:-1]) * np.sqrt(band.bounds[1:])
    known = np.flatnonzero(np.isfinite(band.shares).any(axis=0))
    return [(level, middles[known], centres[(below[:, known] < level).sum(axis=0)]) for level in LEVELS]
