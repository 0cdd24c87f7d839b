"""How many cores there are for this process."""

import os
import sys
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> float:
    """Return how many cores this process may use; a container's quota may be a fraction.

    Args:
        quota: File in which the kernel tells it, as microseconds of processor time in so many microseconds.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        allowed, period = map(int, quota.read_text().split())
    except (OSError, ValueError):  # no such file, or no quota
        return cores
    return min(cores, allowed / period)
