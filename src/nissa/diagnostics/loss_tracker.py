"""Running statistics of a training loss: initial level, smoothed level and step-to-step change.

Missing losses (steps whose measurement was lost) keep their places in every window. A statistic needs two thirds of the
places of its window. Later losses never replace a missing initial level.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from statistics import median

_NEWEST = 15


class Beginning:
    """Initial level of a loss: the median of its first values.

    A missing loss counts as infinite, so that the level is never below the true one. Rules flag losses that are large
    relative to the level, so a level that is too high causes no false alarm. If half of the first losses or more are
    missing, the level stays unknown.

    Args:
        length: Number of first losses.

    Attributes:
        start: First loss, before any step; None until it arrives, and if it is missing.
        level: Median of the first losses; None until all have arrived, and if unknown.
        unknown: Whether too many losses are missing for a level.
        over: Whether all first losses have arrived or are missing.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._losses: list[float] = []
        self._lost = 0
        self.start: float | None = None
        self.level: float | None = None
        self.over = False

    @property
    def unknown(self) -> bool:
        """Whether too many losses are missing for a level."""
        return 2 * self._lost >= self._length

    def lose(self, missed: int) -> None:
        """Fill the places of missing losses."""
        if not self.over:
            lost = min(missed, self._length - len(self._losses))
            self._lost += lost
            self._add([math.inf] * lost)

    def feed(self, loss: float) -> None:
        """Add a finite loss."""
        if not self.over:
            self.start = loss if not self._losses else self.start
            self._add([loss])

    def _add(self, losses: list[float]) -> None:
        self._losses += losses
        if len(self._losses) >= self._length:
            self.level = None if self.unknown else median(self._losses)
            self.over = True
            self._losses.clear()


class MedianWindow:
    """Median of the newest values. It is updated, because sorting a window for each value would take ten times as long.

    Args:
        length: Number of places.

    Attributes:
        length: Number of places.
        values: Values of the places in use, oldest first; None stands for a missing one.
    """

    __slots__ = ("_sorted", "length", "values")

    def __init__(self, length: int) -> None:
        self.length = length
        self.values: deque[float | None] = deque(maxlen=length)
        self._sorted: list[float] = []

    def add(self, value: float | None) -> None:
        """Add a value, which takes the place of the oldest one when all places are in use."""
        if len(self.values) == self.length and (oldest := self.values[0]) is not None:
            del self._sorted[bisect_left(self._sorted, oldest)]
        self.values.append(value)
        if value is not None:
            insort(self._sorted, value)

    def median(self) -> float:
        """Return the median; NaN if more than a third of the values is missing, and without any."""
        known, number = self._sorted, len(self._sorted)
        if not number or 3 * number < 2 * len(self.values):
            return math.nan
        middle = number // 2
        return known[middle] if number % 2 else (known[middle - 1] + known[middle]) / 2


class LossTracker:
    """Running statistics of a loss. They are medians, so that a single outlier batch does not move them.

    Args:
        begins: Number of first losses that define the initial level.

    Attributes:
        beginning: Initial level.
        seen: Number of finite losses, missing ones included.
        smooth: Median of the newest losses, NaN if too many are missing.
        best: Lowest ``smooth`` so far, infinite until the initial level is complete.
        jump: Median of the newest absolute changes from step to step, NaN if too many are missing.
    """

    def __init__(self, begins: int) -> None:
        self.beginning = Beginning(begins)
        # Bounded windows of the medians. None stands for a missing loss, and for a change from a missing loss.
        self._newest = MedianWindow(max(_NEWEST, begins))
        self._jumps = MedianWindow(_NEWEST)
        self.seen = 0
        self.smooth = self.jump = math.nan
        self.best = math.inf

    def lose(self, missed: int) -> None:
        """Fill the places of missing losses."""
        self.beginning.lose(missed)
        self.seen += missed
        for window in (self._newest, self._jumps):
            for _ in range(min(missed, window.length)):
                window.add(None)

    def feed(self, loss: float) -> None:
        """Add a finite loss."""
        self.beginning.feed(loss)
        self.seen += 1
        if self._newest.values:
            before = self._newest.values[-1]
            self._jumps.add(None if before is None else abs(loss - before))
            self.jump = self._jumps.median()
        self._newest.add(loss)
        self.smooth = self._newest.median()
        if self.beginning.over and not math.isnan(self.smooth):
            self.best = min(self.best, self.smooth)
