"""Running statistics of a training loss: initial level, smoothed level and step-to-step change.

Missing losses (steps whose measurement was lost) keep their places in every window. A statistic needs two thirds of the
places of its window. Later losses never replace a missing initial level.
"""

import math
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
        self._window = max(_NEWEST, begins)
        self._newest: deque[float | None] = deque(maxlen=self._window)
        self._jumps: deque[float | None] = deque(maxlen=_NEWEST)
        self.seen = 0
        self.smooth = self.jump = math.nan
        self.best = math.inf

    def lose(self, missed: int) -> None:
        """Fill the places of missing losses."""
        self.beginning.lose(missed)
        self.seen += missed
        places = [None] * min(missed, self._window)
        self._newest.extend(places)
        self._jumps.extend(places)

    def feed(self, loss: float) -> None:
        """Add a finite loss."""
        self.beginning.feed(loss)
        self.seen += 1
        if self._newest:
            before = self._newest[-1]
            self._jumps.append(None if before is None else abs(loss - before))
            self.jump = _median(self._jumps)
        self._newest.append(loss)
        self.smooth = _median(self._newest)
        if self.beginning.over and not math.isnan(self.smooth):
            self.best = min(self.best, self.smooth)


def _median(window: "deque[float | None]") -> float:
    known = [each for each in window if each is not None]
    return median(known) if 3 * len(known) >= 2 * len(window) else math.nan
