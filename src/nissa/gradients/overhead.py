"""What watching costs: the share of wall time that the training thread, and our own threads, spend on telemetry."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from nissa.hub.stopwatch import Stopwatch, Timer

Clock = Callable[[], int]
"""Returns nanoseconds."""


def nothing() -> float:
    """Return that no other thread of ours has run."""
    return 0.0


class OverheadWindow:
    """The time from one sampled step of an environment to the next; read by the thread that steps.

    Args:
        stopwatch: What threads spend in our code.
        background: Returns how much our own threads held up training, as a fraction of wall time.
        now: The stopwatch's clock.
    """

    def __init__(
        self, stopwatch: "Stopwatch", *, background: Callable[[], float] = nothing, now: Clock = perf_counter_ns
    ) -> None:
        self.stopwatch = stopwatch
        self._background = background
        self._now = now
        self._last: tuple[Timer, int, int] | None = None

    def close(self) -> float | None:
        """Return what was spent since the last call as a fraction of the time since; None at first.

        None too where another thread steps now than before, of whose time nothing is known.
        """
        timer, at = self.stopwatch.own, self._now()
        spent = timer.until(at)
        last, self._last = self._last, (timer, at, spent)
        if last is None or last[0] is not timer or at <= last[1]:
            return None
        return (spent - last[2]) / (at - last[1]) + self._background()


class HookTimer:
    """What the hooks of one optimizer cost in a step: ``with toll:`` around each.

    Attributes:
        cost: Nanoseconds in these blocks since it was taken.
    """

    __slots__ = ("_before", "_stopwatch", "_timer", "cost")

    def __init__(self, stopwatch: "Stopwatch") -> None:
        self._stopwatch = stopwatch
        self.cost = 0

    def __enter__(self) -> None:
        """Count from here."""
        timer = self._timer = self._stopwatch.own
        self._before = timer.spent
        timer.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Count up to here."""
        self._timer.__exit__(kind, error, trace)
        self.cost += self._timer.spent - self._before

    def take(self) -> int:
        """Return the cost, and begin anew."""
        cost, self.cost = self.cost, 0
        return cost
