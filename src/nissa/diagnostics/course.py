"""How a training loss goes: where it began, where it is without its noise, and how much it jumps."""

import math
from collections import deque
from statistics import median

_NEWEST = 15


class Course:
    """Follows a loss. What is smooth is a median, since one batch that is far off must not move it.

    Args:
        begins: How many losses are taken as its beginning.

    Attributes:
        seen: How many finite losses there were.
        start: The first of them, which no step has changed yet.
        first: Median of the beginning, None before it is over.
        smooth: Median of the newest losses.
        best: The lowest such median, infinite before the beginning is over.
        jump: Median of the newest changes from step to step, without their sign.
    """

    def __init__(self, begins: int) -> None:
        self._begins = begins
        self._newest: deque[float] = deque(maxlen=max(_NEWEST, begins))
        self._jumps: deque[float] = deque(maxlen=_NEWEST)
        self.seen = 0
        self.start: float | None = None
        self.first: float | None = None
        self.smooth = self.jump = math.nan
        self.best = math.inf

    def feed(self, loss: float) -> None:
        """Take a finite loss."""
        if self._newest:
            self._jumps.append(abs(loss - self._newest[-1]))
            self.jump = median(self._jumps)
        else:
            self.start = loss
        self._newest.append(loss)
        self.seen += 1
        self.smooth = median(self._newest)
        if self.seen == self._begins:
            self.first = self.smooth
        if self.seen >= self._begins:
            self.best = min(self.best, self.smooth)
