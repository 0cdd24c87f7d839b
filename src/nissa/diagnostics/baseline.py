"""What is usual: robust statistics over the past of a number, and of a number per layer.

The median, and the median absolute deviation times 1.4826, which is the standard deviation where numbers are normally
distributed (Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", 1993). Whoever keeps a baseline
decides what is fed to it: what was flagged is not.
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
        self._kept = np.empty(window)
        self._seen = 0
        self._warm_up = min(warm_up, window)

    @property
    def ready(self) -> bool:
        """Whether enough was seen."""
        return self._seen >= self._warm_up

    @property
    def known(self) -> "NDArray[np.float64]":
        """The numbers that are kept, in no order."""
        return self._kept[: min(self._seen, len(self._kept))]

    def feed(self, value: float) -> None:
        """Add a number, in place of the oldest where the window is full."""
        self._kept[self._seen % len(self._kept)] = value
        self._seen += 1

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
        self._seen = np.empty(0, dtype=np.int64)

    def median(self, names: tuple[str, ...]) -> "NDArray[np.float64]":
        """Return what is usual for each layer, NaN where too little was seen of it."""
        self._follow(names)
        median = np.full(len(names), np.nan)
        ready = self._seen >= self._warm_up
        if ready.any():
            # What is not there yet is NaN, which is put at the end; numpy's own `nanmedian` takes ten times as long.
            number = np.minimum(self._seen[ready], self._window)
            low, high = (number - 1) // 2, number // 2
            parted = np.partition(self._kept[ready], np.union1d(low, high), axis=1)
            rows = np.arange(len(parted))
            median[ready] = (parted[rows, low] + parted[rows, high]) / 2
        return median

    def feed(self, names: tuple[str, ...], values: "NDArray[np.float64]", usable: "NDArray[np.bool_]") -> None:
        """Add a number for each layer that is usable and finite."""
        self._follow(names)
        rows = np.flatnonzero(usable & np.isfinite(values))
        self._kept[rows, self._seen[rows] % self._window] = values[rows]
        self._seen[rows] += 1

    def _follow(self, names: tuple[str, ...]) -> None:
        if names == self._names:
            return
        known = {name: row for row, name in enumerate(self._names)}
        before = np.array([known.get(name, -1) for name in names], dtype=np.int64)
        kept, seen = np.full((len(names), self._window), np.nan), np.zeros(len(names), dtype=np.int64)
        stay = before >= 0
        kept[stay], seen[stay] = self._kept[before[stay]], self._seen[before[stay]]
        self._names, self._kept, self._seen = names, kept, seen


def _median(values: "NDArray[np.float64]") -> float:
    # Several times quicker than numpy's own on a window of this size, which matters once per step.
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)
