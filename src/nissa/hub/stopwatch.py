"""Per-thread timers of the time spent in Nissa's code: the overhead of the training thread.

Each thread has its own timer, so that the work of Nissa's threads does not count as overhead of the training thread. A
timer is reentrant. Entering and leaving it takes less than half a microsecond.

The timers belong to the hub, because emitting an event is overhead of the training thread and the hub must not import
`nissa.gradients`. `nissa.gradients.overhead` computes the overhead from them.
"""

import threading
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Timer:
    """Timer of one thread: ``with timer:`` around Nissa's code, ``with timer.pause:`` around other code within.

    Args:
        now: Monotonic clock in nanoseconds.

    Attributes:
        spent: Nanoseconds inside completed blocks.
        pause: Context manager whose block is not counted: code of the caller, and documented waits.
    """

    __slots__ = ("_began", "_depth", "_now", "pause", "spent")

    def __init__(self, now: "Callable[[], int]" = perf_counter_ns) -> None:
        self.spent = 0
        self.pause = Pause(self)
        self._depth = 0
        self._began = 0
        self._now = now

    def __enter__(self) -> None:
        """Start the timer, unless it runs already."""
        if not self._depth:
            self._began = self._now()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Stop the timer at the end of the outermost block."""
        self._depth -= 1
        if not self._depth:
            self.spent += self._now() - self._began

    def until(self, at: int) -> int:
        """Return the nanoseconds inside blocks, including the current block up to the time ``at``."""
        return self.spent + at - self._began if self._depth else self.spent

    def stop(self) -> int:
        """Suspend the timer; return the number of nested blocks, for `resume`."""
        depth, self._depth = self._depth, 0
        if depth:
            self.spent += self._now() - self._began
        return depth

    def resume(self, depth: int) -> None:
        """Continue the timer with the number of nested blocks that `stop` returned."""
        if depth:
            self._began = self._now()
        self._depth = depth


class Pause:
    """Context manager that suspends a timer."""

    __slots__ = ("_depths", "_timer")

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._depths: list[int] = []

    def __enter__(self) -> None:
        """Suspend the timer."""
        self._depths.append(self._timer.stop())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Continue the timer, if it ran before."""
        self._timer.resume(self._depths.pop())


class Stopwatch(threading.local):
    """Timers of all threads.

    Args:
        now: Monotonic clock in nanoseconds.

    Attributes:
        own: Timer of the calling thread.
    """

    def __init__(self, now: "Callable[[], int]" = perf_counter_ns) -> None:
        self.own = Timer(now)
