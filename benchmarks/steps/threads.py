"""Threads besides the training thread: an exporter on request, and the CPU time of all of Nissa's threads."""

import sys
import threading
from dataclasses import dataclass
from math import inf
from pathlib import Path
from queue import Queue
from time import clock_gettime_ns, monotonic, process_time, process_time_ns, sleep
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HELPERS: Final = "nissa-kernel"
"""How the names of threads begin that work while the training thread waits for them: its wall time holds theirs already."""

_TASKS: Final = Path("/proc/self/task")
_LOOK: Final = 0.01
_IDLE: Final = 0.05
"""Maximum CPU time of an idle process, as a share of wall time; above 0, because the check itself takes time."""
_LONGEST: Final = 5.0


class Exporter:
    """Exports in the background.

    Args:
        export: Exports, and returns when finished.
    """

    def __init__(self, export: "Callable[[], object]") -> None:
        self._export = export
        self._requests: Queue[bool] = Queue()
        # One thread for all exports, like that of the SDK, so that their CPU time can be measured.
        self._thread = threading.Thread(target=self._run, name="nissa-bench-export", daemon=True)
        self._thread.start()

    @property
    def thread(self) -> int:
        """Id of the thread in the operating system."""
        return self._thread.native_id or 0

    def begin(self) -> None:
        """Begin an export."""
        self._requests.put(True)

    def wait(self) -> None:
        """Wait until the export is finished; return at once if none was begun."""
        self._requests.join()

    def close(self) -> None:
        """End the thread after the current export."""
        self._requests.put(False)
        self._thread.join()

    def _run(self) -> None:
        while self._requests.get():
            try:
                self._export()
            finally:  # what waits must not wait for ever
                self._requests.task_done()


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds so far.

    Args:
        steps: CPU seconds of threads that work for each step or each sample.
        exports: CPU seconds of threads that export.
    """

    steps: float = 0.0
    exports: float = 0.0

    def since(self, before: "Spent") -> "Spent":
        """Return the difference to an earlier value."""
        return Spent(self.steps - before.steps, self.exports - before.exports)


def spent(ours: dict[int, int], exporter: Exporter) -> Spent:
    """Return the CPU time of Nissa's threads; call it while they are idle.

    Args:
        ours: Nanoseconds of each of them, by the system's id.
        exporter: What exports. A flush starts threads of its own, which have ended by now, as no others of the process do.
    """
    if sys.platform != "linux":
        return Spent()
    left_out = {thread.native_id for thread in threading.enumerate() if thread.name.startswith(HELPERS)}
    steps = sum(time for thread, time in ours.items() if thread not in left_out and thread != exporter.thread)
    ended = process_time_ns() - sum(_time(int(task.name)) for task in _TASKS.iterdir())
    return Spent(steps / 1e9, (ours.get(exporter.thread, 0) + max(0, ended)) / 1e9)


def settle() -> None:
    """Wait until all other threads of this process are idle, for some seconds at most."""
    ends = monotonic() + _LONGEST
    quiet = 0
    while quiet < 2 and monotonic() < ends:  # noqa: PLR2004 - between two parts of a work a thread may wait a moment
        busy, began = process_time(), monotonic()
        sleep(_LOOK)
        quiet = quiet + 1 if process_time() - busy < _IDLE * (monotonic() - began) else 0


def _time(task: int) -> int:
    try:
        return clock_gettime_ns((~task << 3) | 6)  # what pthread_getcpuclockid() makes
    except OSError:  # it has ended
        return 0


def free_memory() -> float:
    """Return the available memory in MiB; infinite if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return inf
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:")), inf)
