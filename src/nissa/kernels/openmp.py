"""Parallel execution on torch's OpenMP threads, while a kernel runs on the training thread.

A separate thread pool would be slower. After an operation, torch's threads wait for some milliseconds by spinning, and
occupy all cores that training may use. The tasks therefore run on these threads, through the OpenMP runtime that torch
has loaded.
"""

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nissa.kernels.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable

_state = {"forked": False}


def parallel_for(share: Any, data: int, tasks: int) -> None:
    """Run tasks on the calling thread and on torch's OpenMP threads; returns when all are done.

    Args:
        share: C function that each thread calls, from ``ctypes``. It runs without the GIL.
        data: Address that is passed to the function.
        tasks: Number of tasks; a single one runs on the calling thread.
    """
    threads = _threads() if tasks > 1 else 1
    parallel = _parallel() if threads > 1 else None
    if parallel is None:
        share(data)
    else:
        parallel(share, data, threads, 0)


def _threads() -> int:
    """Return the number of threads to use: the smaller of torch's threads and the usable cores.

    A forked child does not inherit the threads of the runtime, and using them there would deadlock.
    """
    allowed = torch.get_num_threads()
    return allowed if allowed == 1 else 1 if _state["forked"] else max(1, min(allowed, _cores()))


@cache
def _cores() -> int:
    return int(usable_cores())


@cache
def _parallel() -> "Callable[[Any, int, int, int], None] | None":
    """Return ``GOMP_parallel`` of torch's OpenMP runtime; None if it is not found."""
    # Look up the symbol through libtorch_cpu: the library name varies, but the GNU, LLVM and Intel runtimes export it.
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        parallel: Any = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    parallel.restype = None
    found: Callable[[Any, int, int, int], None] = parallel
    return found


def _in_child() -> None:
    _state["forked"] = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
