"""Number of CPU cores that this process may use."""

import os
import sys
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> float:
    """Return the number of cores that this process may use; the quota of a container may be fractional.

    Args:
        quota: The cgroup file ``cpu.max``: microseconds of CPU time per period, and the period in microseconds.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        allowed, period = map(int, quota.read_text().split())
    except (OSError, ValueError):  # no such file, or no quota
        return cores
    return min(cores, allowed / period)
