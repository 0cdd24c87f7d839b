"""How long a thread has been in our code: what the training thread spends on telemetry.

Each thread has a timer of its own, so that what our own threads do is no cost of the training thread. A timer may be
entered again while it runs. Entering and leaving take less than half a microsecond.
"""

import threading
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Timer:
    """The timer of one thread: ``with timer:`` around what is ours, ``with timer.pause:`` around what is not.

    Args:
        now: A clock that never goes back, in nanoseconds.

    Attributes:
        spent: Nanoseconds inside so far, without those of the block under way.
        pause: What runs in it is not counted: the caller's own code, and waits that are documented as such.
    """

    __slots__ = ("_began", "_depth", "_now", "pause", "spent")

    def __init__(self, now: "Callable[[], int]" = perf_counter_ns) -> None:
        self.spent = 0
        self.pause = Pause(self)
        self._depth = 0
        self._began = 0
        self._now = now

    def __enter__(self) -> None:
        """Count from here."""
        if not self._depth:
            self._began = self._now()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Count up to here."""
        self._depth -= 1
        if not self._depth:
            self.spent += self._now() - self._began

    def until(self, at: int) -> int:
        """Return nanoseconds inside so far, with those of the block under way up to a time."""
        return self.spent + at - self._began if self._depth else self.spent

    def stop(self) -> int:
        """Leave all blocks for a while; return how many there were."""
        depth, self._depth = self._depth, 0
        if depth:
            self.spent += self._now() - self._began
        return depth

    def resume(self, depth: int) -> None:
        """Enter as many blocks again."""
        if depth:
            self._began = self._now()
        self._depth = depth


class Pause:
    """See `Timer`."""

    __slots__ = ("_depths", "_timer")

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._depths: list[int] = []

    def __enter__(self) -> None:
        """Stop counting."""
        self._depths.append(self._timer.stop())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Go on counting, where anything was counted before."""
        self._timer.resume(self._depths.pop())


class Stopwatch(threading.local):
    """The timers of all threads.

    Args:
        now: A clock that never goes back, in nanoseconds.

    Attributes:
        own: The timer of the calling thread.
    """

    def __init__(self, now: "Callable[[], int]" = perf_counter_ns) -> None:
        self.own = Timer(now)
