"""Measurement of the telemetry overhead: time of the training thread, CPU time of Nissa's threads, and costs per step.

`nissa.gradients.sampling` decides by these measurements how often gradients are sampled.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from statistics import median
from time import clock_gettime_ns, perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING, Final

from nissa.hub.critical import CriticalSections
from nissa.kernels.cores import usable_cores

if TYPE_CHECKING:
    from types import TracebackType

    from nissa.hub.stopwatch import Stopwatch, Timer

Clock = Callable[[], int]
"""Clock that returns nanoseconds."""

OURS: Final = ("nissa-", "Otel")
"""Name prefixes of Nissa's threads and of the OpenTelemetry SDK's export threads."""

_REFRESH: Final = 250_000_000
"""Minimum nanoseconds between two measurements of the threads."""

_MEMORY: Final = 30e9
"""Time constant in nanoseconds: after it the weight of a measurement has decayed to 1/e."""

FEWEST_STEPS, MOST_STEPS = 32, 4_096
"""Bounds for the number of steps between two decisions; within them, as many steps as take two seconds."""

_SECONDS: Final = 2e9

_FEW_SAMPLES: Final = 3
"""Samples required before the first decision: the first sample is slow, because it loads and compiles kernels."""


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


class ThreadCpuUsage:
    """CPU time of Nissa's own threads, weighted by the load of the machine.

    A background thread only delays training if no core is free. Its CPU time is therefore multiplied by the share of
    busy cores, of this process or of all processes, whichever is larger. On a fully loaded machine it counts in full.

    Args:
        cpu: Returns the cumulative CPU time of each of Nissa's threads by thread id, in nanoseconds.
        process: Returns the cumulative CPU time of the process in nanoseconds.
        now: A monotonic clock in nanoseconds.
        cores: Number of cores that the process may use.
        load: Returns the recent share of busy cores of the machine.
        sections: The hub's critical sections.
    """

    def __init__(
        self,
        *,
        cpu: "Callable[[], dict[int, int]] | None" = None,
        process: Callable[[], int] = process_time_ns,
        now: Callable[[], int] = perf_counter_ns,
        cores: float | None = None,
        load: "Callable[[], float] | None" = None,
        sections: CriticalSections | None = None,
    ) -> None:
        self._cpu = cpu or thread_times
        self._process = process
        self._now = now
        self._cores = cores or usable_cores()
        self._load = load or _load
        # The lock serializes refreshes: several training threads may call this, and two concurrent refreshes would
        # count the same CPU time twice.
        self._sections = sections or CriticalSections()
        self._lock = self._sections.lock()
        self._last = now(), process(), self._cpu()
        self._share = 0.0
        self._total = 0
        self._samples = 0
        self._recent = [0.0, 0.0]

    def share(self) -> float:
        """Return the recent delay of training as a fraction of wall time."""
        self._refresh()
        return self._share

    def sampled(self) -> None:
        """Count one sampled step."""
        self._samples += 1

    def cost(self) -> float:
        """Return the average nanoseconds per sampled step, weighted towards the last 30 seconds."""
        self._refresh()
        spent, samples = self._recent
        return spent / samples if samples >= 1 else 0.0

    def _refresh(self) -> None:
        with self._sections, self._lock:
            at = self._now()
            if at - self._last[0] >= _REFRESH:
                self._measure(at)

    def _measure(self, at: int) -> None:
        process, threads = self._process(), self._cpu()
        began, process_before, before = self._last
        self._last = at, process, threads
        wall = at - began
        busy = min(1.0, max(self._load(), (process - process_before) / (wall * self._cores)))
        held = busy * sum(max(0, time - before.get(thread, 0)) for thread, time in threads.items())
        self._share = held / wall
        kept = exp(-wall / _MEMORY)
        samples, self._samples = self._samples, 0
        self._recent = [kept * self._recent[0] + held, kept * self._recent[1] + samples]


def thread_times() -> dict[int, int]:
    """Return the cumulative CPU nanoseconds of each of Nissa's threads by thread id; empty except on Linux."""
    if sys.platform != "linux":
        return {}
    found: dict[int, int] = {}
    for thread in threading.enumerate():
        if thread.name.startswith(OURS) and thread.native_id is not None:
            try:
                found[thread.native_id] = clock_gettime_ns(_clock_of(thread.native_id))
            except OSError:  # the thread has ended
                continue
    return found


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def _clock_of(thread: int) -> int:
    # Compute the clock id like pthread_getcpuclockid(), but from the kernel's thread id: for a thread that has ended
    # the kernel then returns an error, while the pthread function would read freed memory.
    return (~thread << 3) | 6


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Measured costs in nanoseconds.

    Args:
        step: Duration of a step without Nissa.
        plain: Overhead added to every step.
        sample: Further overhead of a sampled step, over all threads.
    """

    step: float
    plain: float
    sample: float

    def share(self, interval: int) -> float:
        """Return the overhead as a share of step time if every ``interval``-th step is sampled."""
        ours = self.plain + self.sample / interval
        return ours / (self.step + ours)


class CostHistory:
    """Recent step and sample costs of one watched optimizer."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=64)
        self._plain: deque[int] = deque(maxlen=64)
        self._samples: deque[int] = deque(maxlen=8)

    def add(self, lap: int | None, cost: int, *, sampled: bool) -> None:
        """Add one step.

        Args:
            lap: Nanoseconds since the previous step; None if that time is not a step duration.
            cost: Overhead of this step in nanoseconds.
            sampled: Whether its gradients were measured.
        """
        (self._samples if sampled else self._plain).append(cost)
        if lap is not None:
            self._steps.append(max(1, lap - cost))

    def costs(self, background: float) -> StepCosts | None:
        """Return median costs, or None until enough samples exist.

        Args:
            background: Nanoseconds that Nissa's other threads spend per sample.
        """
        if not self._steps or len(self._samples) < _FEW_SAMPLES:
            return None
        plain = median(self._plain) if self._plain else 0.0
        return StepCosts(median(self._steps), plain, max(0.0, median(self._samples) - plain) + background)

    def round(self) -> int:
        """Return the number of steps until the next decision, a power of two."""
        wanted = _SECONDS / median(self._steps) if self._steps else FEWEST_STEPS
        return 1 << int(min(MOST_STEPS, max(FEWEST_STEPS, wanted))).bit_length() - 1
