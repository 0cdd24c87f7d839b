"""Telemetry overhead: the share of wall time that the training thread and Nissa's own threads spend on it."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from nissa.hub.stopwatch import Stopwatch, Timer

Clock = Callable[[], int]
"""Clock that returns nanoseconds."""


def nothing() -> float:
    """Return 0: no background thread has run."""
    return 0.0


class OverheadWindow:
    """Overhead between two sampled steps of an environment; used by the training thread only.

    Args:
        stopwatch: Timers of the time that threads spend in Nissa's code.
        background: Returns the delay of training by Nissa's own threads, as a fraction of wall time.
        now: The clock of the stopwatch.
    """

    def __init__(
        self, stopwatch: "Stopwatch", *, background: Callable[[], float] = nothing, now: Clock = perf_counter_ns
    ) -> None:
        self.stopwatch = stopwatch
        self._background = background
        self._now = now
        self._last: tuple[Timer, int, int] | None = None

    def close(self) -> float | None:
        """Return the overhead since the last call, as a fraction of the elapsed time; None on the first call.

        Also None if a different thread steps now, because the timers are per thread.
        """
        timer, at = self.stopwatch.own, self._now()
        spent = timer.until(at)
        last, self._last = self._last, (timer, at, spent)
        if last is None or last[0] is not timer or at <= last[1]:
            return None
        return (spent - last[2]) / (at - last[1]) + self._background()


class HookTimer:
    """Timer for the hooks of one optimizer: ``with hook_timer:`` around each.

    Attributes:
        cost: Nanoseconds in these blocks since the last `take`.
    """

    __slots__ = ("_before", "_stopwatch", "_timer", "cost")

    def __init__(self, stopwatch: "Stopwatch") -> None:
        self._stopwatch = stopwatch
        self.cost = 0

    def __enter__(self) -> None:
        """Start timing."""
        timer = self._timer = self._stopwatch.own
        self._before = timer.spent
        timer.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Stop timing and add the elapsed time to the cost."""
        self._timer.__exit__(kind, error, trace)
        self.cost += self._timer.spent - self._before

    def take(self) -> int:
        """Return the cost and reset it to 0."""
        cost, self.cost = self.cost, 0
        return cost
