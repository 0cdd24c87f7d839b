"""What our own threads take of the processor, which training may want."""

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
"""How the names of our threads begin, and those of the SDK that export for us."""

_REFRESH: Final = 250_000_000
"""Nanoseconds between two looks at the threads."""

_MEMORY: Final = 30e9
"""Nanoseconds after which a look weighs 1/e of what it did."""


class ThreadCpuUsage:
    """CPU time of our own threads, as far as it held up training.

    A thread of ours takes time from training where no core is free. Their time therefore counts in proportion to how
    busy cores are, by this process or by all: in full on a machine that is filled.

    Args:
        cpu: Returns CPU time of each of our threads so far, by its id, in nanoseconds.
        process: Returns CPU time of the whole process so far, in nanoseconds.
        now: A clock that never goes back, in nanoseconds.
        cores: How many the process may use.
        load: Returns what share of all cores was busy lately.
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
        # Threads that step and a thread that decides on the budget refresh the figures; two of them at once would
        # count the same CPU time twice.
        self._sections = sections or CriticalSections()
        self._lock = self._sections.lock()
        self._last = now(), process(), self._cpu()
        self._share = 0.0
        self._total = 0
        self._samples = 0
        self._recent = [0.0, 0.0]

    def share(self) -> float:
        """Return how much they held up training lately, as a fraction of wall time."""
        self._refresh()
        return self._share

    def sampled(self) -> None:
        """Note that a step is sampled."""
        self._samples += 1

    def cost(self) -> float:
        """Return what they take for each step that is sampled, in nanoseconds; the newest half minute counts most."""
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
    """Return CPU time of each of our threads so far by its id, in nanoseconds; nothing where the system does not tell."""
    if sys.platform != "linux":
        return {}
    found: dict[int, int] = {}
    for thread in threading.enumerate():
        if thread.name.startswith(OURS) and thread.native_id is not None:
            try:
                found[thread.native_id] = clock_gettime_ns(_clock_of(thread.native_id))
            except OSError:  # it has ended
                continue
    return found


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def _clock_of(thread: int) -> int:
    # What pthread_getcpuclockid() makes; by the kernel's own id, asking for a thread that has ended is an error and not
    # a read of memory that is gone.
    return (~thread << 3) | 6
