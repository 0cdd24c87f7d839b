"""From exponential histograms to shares by bucket and stretch of time."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nissa.charts.distribution import Band
from nissa.recordings import Distribution, DistributionStream

TAIL: Final = 0.001
"""Share of the elements, the smallest ones, for which there are no buckets."""


@dataclass(frozen=True, slots=True)
class _Gain:
    """What was counted in a stretch of time, by index of the bucket at a scale."""

    start: int
    end: int
    scale: int
    counts: dict[int, int]


def band_of(stream: DistributionStream, most_columns: int, most_rows: int) -> Band | None:
    """Return a stream as shares; None where it counted nothing but zeros."""
    return _band(_gains(stream), most_columns, most_rows)


def total_of(streams: Sequence[DistributionStream], most_columns: int, most_rows: int) -> Band | None:
    """Return several streams together, each element counting once."""
    return _band([gain for stream in streams for gain in _gains(stream)], most_columns, most_rows)


def _gains(stream: DistributionStream) -> list[_Gain]:
    """Return what each point counted more than the one before it; a stream that began anew starts from nothing."""
    if not stream.cumulative:
        return [_gain(point.start, point, None) for point in stream.points]
    first = [_gain(point.start, point, None) for point in stream.points[:1]]
    rest = [
        _gain(after.start, after, None) if after.start != before.start else _gain(before.time, after, before)
        for before, after in pairwise(stream.points)
    ]
    return first + rest


def _gain(start: int, point: Distribution, before: Distribution | None) -> _Gain:
    scale = point.scale if before is None else min(point.scale, before.scale)
    counts = _at(point, scale)
    for index, count in ({} if before is None else _at(before, scale)).items():
        counts[index] -= count
    return _Gain(start, point.time, scale, {index: count for index, count in counts.items() if count > 0})


def _at(point: Distribution, scale: int) -> defaultdict[int, int]:
    """Return a point's counts by bucket at a coarser scale: two neighbours become one per step down."""
    counts: defaultdict[int, int] = defaultdict(int)
    for position in np.flatnonzero(point.counts):
        counts[(point.offset + int(position)) >> (point.scale - scale)] += int(point.counts[position])
    return counts


def _band(gains: Sequence[_Gain], most_columns: int, most_rows: int) -> Band | None:
    gains = [gain for gain in gains if gain.counts and gain.end > gain.start]
    if not gains:
        return None
    scale, low, high = _range(gains, most_rows)
    edges = _edges(gains, most_columns)
    counts, totals = np.zeros((high - low + 1, len(edges) - 1)), np.zeros(len(edges) - 1)
    for gain in gains:
        column = min(int(np.searchsorted(edges, gain.end, side="left")) - 1, len(edges) - 2)
        for index, count in gain.counts.items():
            totals[column] += count
            row = (index >> (gain.scale - scale)) - low
            if row >= 0:
                counts[row, column] += count
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals > 0, counts / totals, np.nan)
    bounds = np.exp2(np.arange(low, high + 2) / 2.0**scale)
    return Band(edges, None, bounds, shares)


def _range(gains: Sequence[_Gain], most_rows: int) -> tuple[int, int, int]:
    """Return the finest scale at which there are not too many buckets, and the first and the last of them.

    The smallest elements, all together a share of ``TAIL``, have no bucket: they are spread over many orders of
    magnitude, and would make the others indistinct.
    """
    scale = min(gain.scale for gain in gains)
    counts: Counter[int] = Counter()
    for gain in gains:
        for index, count in gain.counts.items():
            counts[index >> (gain.scale - scale)] += count
    indices = np.array(sorted(counts))
    below = np.cumsum([counts[index] for index in indices])
    low, high = int(indices[np.searchsorted(below, TAIL * below[-1])]), int(indices[-1])
    while high - low + 1 > most_rows:
        scale, low, high = scale - 1, low >> 1, high >> 1
    return scale, low, high


def _edges(gains: Sequence[_Gain], most_columns: int) -> NDArray[np.int64]:
    """Return the times between columns: exports, or as many neighbours of them together as it takes."""
    ends = np.unique([gain.end for gain in gains])
    columns = min(len(ends), most_columns)
    last = (np.arange(1, columns + 1) * len(ends)) // columns - 1
    return np.concatenate([[min(gain.start for gain in gains)], ends[last]]).astype(np.int64)


LEVELS: Final = (0.01, 0.5, 0.99)
"""The quantiles that are taken from shares where none was exported."""


def quantiles_of(band: Band) -> list[tuple[float, NDArray[np.int64], NDArray[np.float64]]]:
    """Return quantiles of each column, as far as buckets tell: level, times and values at the columns' middles."""
    below = np.nancumsum(band.shares, axis=0) + (1 - np.nansum(band.shares, axis=0))
    middles = (band.edges[:-1] + band.edges[1:]) // 2
    centres = np.sqrt(band.bounds[:-1] * band.bounds[1:])
    known = np.flatnonzero(np.isfinite(band.shares).any(axis=0))
    return [(level, middles[known], centres[(below[:, known] < level).sum(axis=0)]) for level in LEVELS]
