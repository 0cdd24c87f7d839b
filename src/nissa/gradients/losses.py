"""Mean and spread of training losses: over an epoch, or over the newest steps of a loop without epochs."""

from collections import deque
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import Final

RECENT: Final = 1_000
"""Largest number of newest losses that a loop without epochs averages."""


@dataclass(slots=True)
class Losses:
    """Running mean and variance of the training losses of an epoch.

    Args:
        m2: Sum of squared distances of the finite losses from their mean (Welford's algorithm).
        finite: Number of finite losses.
        center: Mean of the finite losses.
        missed: Number of steps of the epoch that were never delivered, with or without a loss.
    """

    total: float = 0.0
    count: int = 0
    m2: float = 0.0
    finite: int = 0
    center: float = 0.0
    missed: int = 0

    def add(self, loss: float) -> None:
        """Add the loss of one step."""
        self.total += loss
        self.count += 1
        if isfinite(loss):
            self.finite += 1
            distance = loss - self.center
            self.center += distance / self.finite
            self.m2 += distance * (loss - self.center)

    @property
    def mean(self) -> float | None:
        """Mean over the steps with a loss; None without any. NaN and infinity propagate."""
        return self.total / self.count if self.count else None

    @property
    def noise(self) -> float | None:
        """Population standard deviation; None below two losses, NaN if one of them was not finite."""
        if self.count < 2:  # noqa: PLR2004 - one loss has no spread
            return None
        return sqrt(self.m2 / self.finite) if self.finite == self.count else nan


class RecentLosses:
    """Newest losses of a loop without epochs. The worker adds them, and any thread reads them.

    Args:
        limit: Number of losses to keep, missing ones included.
    """

    __slots__ = ("_losses",)

    def __init__(self, limit: int = RECENT) -> None:
        # None stands for a step that was never delivered.
        self._losses: deque[float | None] = deque(maxlen=limit)

    def add(self, loss: float | None, missed: int) -> None:
        """Add the loss of a step, and the steps before it that were never delivered."""
        self._losses.extend([None] * min(missed, self._losses.maxlen or 0))
        if loss is not None:
            self._losses.append(loss)

    def total(self) -> Losses | None:
        """Return mean and spread of the losses; None without any."""
        kept = list(self._losses)  # a copy, since the worker may add one meanwhile
        if not kept:
            return None
        losses = Losses(missed=kept.count(None))
        for loss in kept:
            if loss is not None:
                losses.add(loss)
        return losses
