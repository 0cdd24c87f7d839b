"""How a training loss goes: where it began, where it is without its noise, and how much it jumps.

Losses that were lost keep their places in every window. A statistic needs two thirds of the places of its window, and
nothing that came later is taken for the beginning.
"""

import math
from collections import deque
from statistics import median

_NEWEST = 15


class Beginning:
    """Level of the first losses, as their median.

    A lost loss counts as higher than all others, so that the level is never below the true one: rules flag what is large
    beside it. Where half of them or more were lost, the level stays unknown.

    Args:
        length: How many losses are taken as the beginning.

    Attributes:
        start: The very first loss, which no step has changed yet; None before it was seen, and where it was lost.
        level: Median of the beginning; None before it is over, and where it is unknown.
        unknown: Whether so many were lost that there will never be a level.
        over: Whether as many losses as that were seen or lost.
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
        """Whether there will never be a level."""
        return 2 * self._lost >= self._length

    def lose(self, missed: int) -> None:
        """Take the places of losses that were lost."""
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
    """Follows a loss. What is smooth is a median, since one batch that is far off must not move it.

    Args:
        begins: How many losses are taken as its beginning.

    Attributes:
        beginning: The first of them.
        seen: How many finite losses there were, those that were lost included.
        smooth: Median of the newest losses, NaN where too many of them were lost.
        best: The lowest such median, infinite before the beginning is over.
        jump: Median of the newest changes from step to step, without their sign; NaN where too many of them were lost.
    """

    def __init__(self, begins: int) -> None:
        self.beginning = Beginning(begins)
        # None stands for a loss that was lost, and for a change where the loss before was.
        self._window = max(_NEWEST, begins)
        self._newest: deque[float | None] = deque(maxlen=self._window)
        self._jumps: deque[float | None] = deque(maxlen=_NEWEST)
        self.seen = 0
        self.smooth = self.jump = math.nan
        self.best = math.inf

    def lose(self, missed: int) -> None:
        """Take the places of losses that were lost."""
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
