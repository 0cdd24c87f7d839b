"""Baselines: robust statistics over a window of past values, of one stream or per layer.

The center is the median. The deviation is the median absolute deviation times 1.4826, which equals the standard deviation
of normally distributed values (Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", 1993). Rules feed only
values that they did not flag, so that a trouble does not become the baseline.

Lost values keep their places in the window as NaN. After a loss, the baseline is not ready until as many new values have
arrived as were lost, at most a warm-up, since the network may have changed meanwhile. If half a window or more was lost at
once, all older values are dropped: the median would otherwise be one of them.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from math import isnan, nan
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NORMAL: Final = 1.4826


class Baseline:
    """Median and deviation of the newest values of a stream.

    Args:
        window: Number of values kept.
        warm_up: Number of values needed before the baseline is ready.
    """

    def __init__(self, window: int, warm_up: int) -> None:
        self._window = window
        self._warm_up = min(warm_up, window)
        self._unsettled = 0
        # Values in the order of their arrival, NaN for lost places, and those that are not NaN in ascending order.
        self._kept: deque[float] = deque()
        self._ordered: list[float] = []

    @property
    def ready(self) -> bool:
        """Whether the window has enough values."""
        return len(self._ordered) >= self._warm_up and self.settled

    @property
    def known(self) -> "NDArray[np.float64]":
        """Values in the window, in ascending order."""
        return np.array(self._ordered, dtype=np.float64)

    @property
    def settled(self) -> bool:
        """Whether as many new values have arrived as were lost, or a warm-up."""
        return not self._unsettled

    def feed(self, value: float) -> None:
        """Add a value other than NaN; it replaces the oldest in a full window."""
        self._push(value)
        insort(self._ordered, value)
        self._unsettled = max(0, self._unsettled - 1)

    def lose(self, missed: int) -> None:
        """Replace the oldest values by NaN for values that were lost."""
        for _ in range(_places(missed, self._window)):
            self._push(nan)
        self._unsettled = min(self._warm_up, self._unsettled + missed)

    def usual(self) -> tuple[float, float]:
        """Return the median and the robust standard deviation."""
        ordered, middle = self._ordered, len(self._ordered) // 2
        if len(ordered) % 2:
            center = ordered[middle]
            return center, _NORMAL * _distance(ordered, center, middle + 1)
        center = (ordered[middle - 1] + ordered[middle]) / 2
        deviations = _distance(ordered, center, middle), _distance(ordered, center, middle + 1)
        return center, _NORMAL * ((deviations[0] + deviations[1]) / 2)

    def _push(self, value: float) -> None:
        if len(self._kept) == self._window:
            oldest = self._kept.popleft()
            if not isnan(oldest):
                del self._ordered[bisect_left(self._ordered, oldest)]
        self._kept.append(value)


class LayerBaseline:
    """Median of the newest values of each layer, by name; layers may appear and disappear.

    Args:
        window: Number of values kept per layer.
        warm_up: Number of values of a layer needed before its baseline is ready.
    """

    def __init__(self, window: int, warm_up: int) -> None:
        self._window = window
        self._warm_up = min(warm_up, window)
        self._names: tuple[str, ...] = ()
        # One ring buffer per layer; NaN marks empty and lost places. Arrays keep the cost per sample low with many layers.
        self._kept = np.empty((0, window))
        self._next = np.empty(0, dtype=np.int64)
        # Lost places require counting the values per layer, which is skipped otherwise.
        self._holes = False
        self._unsettled = 0

    @property
    def settled(self) -> bool:
        """Whether as many new samples have arrived as were lost, or a warm-up."""
        return not self._unsettled

    def median(self, names: tuple[str, ...]) -> "NDArray[np.float64]":
        """Return the median of each layer, NaN for layers with too few values."""
        self._follow(names)
        median = np.full(len(names), np.nan)
        if not self.settled:
            return median
        number = self._numbers()
        ready = number >= self._warm_up
        if ready.any():
            # `partition` puts NaN, the missing values, at the end; numpy's own `nanmedian` takes ten times as long.
            number = number[ready]
            low, high = (number - 1) // 2, number // 2
            # Most layers have the same number of values, so a set is much faster here than numpy's union1d.
            parted = np.partition(self._kept[ready], [*{*low.tolist(), *high.tolist()}], axis=1)
            rows = np.arange(len(parted))
            median[ready] = (parted[rows, low] + parted[rows, high]) / 2
        return median

    def feed(self, names: tuple[str, ...], values: "NDArray[np.float64]", usable: "NDArray[np.bool_]") -> None:
        """Add the value of each layer where it is usable and finite."""
        self._follow(names)
        rows = np.flatnonzero(usable & np.isfinite(values))
        places = self._next[rows] % self._window
        self._kept[rows, places] = values[rows]
        self._next[rows] += 1
        self._unsettled = max(0, self._unsettled - 1)

    def lose(self, missed: int) -> None:
        """Replace the oldest values of each layer by NaN for samples that were lost."""
        lost = _places(missed, self._window)
        places = (self._next[:, np.newaxis] + np.arange(lost)) % self._window
        np.put_along_axis(self._kept, places, np.nan, axis=1)
        self._next += lost
        self._holes = True
        self._unsettled = min(self._warm_up, self._unsettled + missed)

    def _numbers(self) -> "NDArray[np.int64]":
        """Return the number of values in the window of each layer."""
        places = np.minimum(self._next, self._window)
        if not self._holes:
            return places
        number: NDArray[np.int64] = np.count_nonzero(~np.isnan(self._kept), axis=1)
        self._holes = bool((number < places).any())
        return number

    def _follow(self, names: tuple[str, ...]) -> None:
        if names == self._names:
            return
        before = rows_before(self._names, names)
        stay = before >= 0
        kept = np.full((len(names), self._window), np.nan)
        following = np.zeros(len(names), dtype=np.int64)
        kept[stay], following[stay] = self._kept[before[stay]], self._next[before[stay]]
        self._names, self._kept, self._next = names, kept, following


def _places(missed: int, window: int) -> int:
    """Return the number of window places taken by lost values; all of them if half a window or more was lost."""
    return window if 2 * missed >= window else missed


def rows_before(before: tuple[str, ...], now: tuple[str, ...]) -> "NDArray[np.intp]":
    """Return the former row of each name, -1 for new names."""
    known = {name: row for row, name in enumerate(before)}
    return np.array([known.get(name, -1) for name in now], dtype=np.intp)


def _distance(ordered: Sequence[float], center: float, number: int) -> float:
    """Return the distance to a center of the value that is the ``number``-th nearest to it, from 1.

    The values nearest to the center are neighbours in ascending order, so that a binary search finds the first of them.
    """

    def begins(first: int) -> bool:
        return center - ordered[first] <= ordered[first + number] - center

    first = bisect_left(range(len(ordered) - number), True, key=begins)
    return max(center - ordered[first], ordered[first + number - 1] - center)
