"""CPU usage of Nissa's own threads, as far as it delays training."""

import os
import sys
import threading
from collections.abc import Callable
from math import exp
from time import clock_gettime_ns, perf_counter_ns, process_time_ns
from typing import Final

from nissa.hub.critical import CriticalSections
from nissa.kernels.cores import usable_cores

__all__ = ["OURS", "ThreadCpuUsage", "thread_times"]

OURS: Final = ("nissa-", "Otel")
"""Name prefixes of Nissa's threads and of the OpenTelemetry SDK's export threads."""

_REFRESH: Final = 250_000_000
"""Minimum nanoseconds between two measurements of the threads."""

_MEMORY: Final = 30e9
"""Time constant in nanoseconds: after it the weight of a measurement has decayed to 1/e."""


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
                self._look(at)

    def _look(self, at: int) -> None:
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
