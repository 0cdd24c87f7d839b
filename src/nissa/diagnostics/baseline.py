"""What is usual: robust statistics over the past of a number, and of a number per layer.

The median, and the median absolute deviation times 1.4826, which is the standard deviation where numbers are normally
distributed (Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", 1993). Whoever keeps a baseline
decides what is fed to it: what was flagged is not.

Numbers that were lost keep their places in the window, and nothing is usual until as many have been seen again as were
lost, at most a warm-up: meanwhile the network may have come to where other numbers are usual. Where half a window was lost
at once, the median would still be one of the numbers before, so these are forgotten.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NORMAL: Final = 1.4826


class Baseline:
    """The newest numbers of a stream.

    Args:
        window: How many are kept.
        warm_up: How many must have been seen before anything is usual.
    """

    def __init__(self, window: int, warm_up: int) -> None:
        self._kept = np.full(window, np.nan)
        self._next = 0
        self._number = 0
        self._warm_up = min(warm_up, window)
        self._unsettled = 0

    @property
    def ready(self) -> bool:
        """Whether enough was seen."""
        return self._number >= self._warm_up and self.settled

    @property
    def known(self) -> "NDArray[np.float64]":
        """The numbers that are kept, in no order."""
        window = self._kept[: min(self._next, len(self._kept))]
        return window if self._number == len(window) else window[~np.isnan(window)]

    @property
    def settled(self) -> bool:
        """Whether as many numbers have been seen again as were lost, or a warm-up."""
        return not self._unsettled

    def feed(self, value: float) -> None:
        """Add a number that is not NaN, in place of the oldest where the window is full."""
        place = self._next % len(self._kept)
        self._number += bool(np.isnan(self._kept[place]))
        self._kept[place] = value
        self._next += 1
        self._unsettled = max(0, self._unsettled - 1)

    def lose(self, missed: int) -> None:
        """Take the places of numbers that were lost."""
        lost = _places(missed, len(self._kept))
        self._kept[(self._next + np.arange(lost)) % len(self._kept)] = np.nan
        self._next += lost
        self._number = int(np.count_nonzero(~np.isnan(self._kept)))
        self._unsettled = min(self._warm_up, self._unsettled + missed)

    def usual(self) -> tuple[float, float]:
        """Return the median and the robust standard deviation."""
        center = _median(self.known)
        return center, _NORMAL * _median(np.abs(self.known - center))


class LayerBaseline:
    """The same for each layer, by name; layers may appear and vanish.

    Args:
        window: How many numbers of a layer are kept.
        warm_up: How many must have been seen of a layer before anything is usual for it.
    """

    def __init__(self, window: int, warm_up: int) -> None:
        self._window = window
        self._warm_up = min(warm_up, window)
        self._names: tuple[str, ...] = ()
        self._kept = np.empty((0, window))
        self._next = np.empty(0, dtype=np.int64)
        self._holes = False
        self._unsettled = 0

    @property
    def settled(self) -> bool:
        """Whether as many samples have been seen again as were lost, or a warm-up."""
        return not self._unsettled

    def median(self, names: tuple[str, ...]) -> "NDArray[np.float64]":
        """Return what is usual for each layer, NaN where too little was seen of it."""
        self._follow(names)
        median = np.full(len(names), np.nan)
        if not self.settled:
            return median
        number = self._numbers()
        ready = number >= self._warm_up
        if ready.any():
            # What is not there is NaN, which is put at the end; numpy's own `nanmedian` takes ten times as long.
            number = number[ready]
            low, high = (number - 1) // 2, number // 2
            # Most layers have as many: a set is much quicker here than numpy's union1d.
            parted = np.partition(self._kept[ready], [*{*low.tolist(), *high.tolist()}], axis=1)
            rows = np.arange(len(parted))
            median[ready] = (parted[rows, low] + parted[rows, high]) / 2
        return median

    def feed(self, names: tuple[str, ...], values: "NDArray[np.float64]", usable: "NDArray[np.bool_]") -> None:
        """Add a number for each layer that is usable and finite."""
        self._follow(names)
        rows = np.flatnonzero(usable & np.isfinite(values))
        places = self._next[rows] % self._window
        self._kept[rows, places] = values[rows]
        self._next[rows] += 1
        self._unsettled = max(0, self._unsettled - 1)

    def lose(self, missed: int) -> None:
        """Take the places of samples that were lost, in each layer."""
        lost = _places(missed, self._window)
        places = (self._next[:, np.newaxis] + np.arange(lost)) % self._window
        np.put_along_axis(self._kept, places, np.nan, axis=1)
        self._next += lost
        self._holes = True
        self._unsettled = min(self._warm_up, self._unsettled + missed)

    def _numbers(self) -> "NDArray[np.int64]":
        """Return how many numbers of each layer are kept."""
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
    """Return how many places of a window are taken by numbers that were lost: all where they are half of it."""
    return window if 2 * missed >= window else missed


def rows_before(before: tuple[str, ...], now: tuple[str, ...]) -> "NDArray[np.intp]":
    """Return for each name where it was before, -1 where it is new."""
    known = {name: row for row, name in enumerate(before)}
    return np.array([known.get(name, -1) for name in now], dtype=np.intp)


def _median(values: "NDArray[np.float64]") -> float:
    # Several times quicker than numpy's own on a window of this size, which matters once per step.
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)
