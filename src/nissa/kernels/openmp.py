"""The threads that torch computes with, which wait while a kernel runs on the thread that trains.

No thread of ours could take their place: for some milliseconds after an operation they wait by spinning, and keep the cores
that training was given busy until then. So they are asked themselves, through the OpenMP runtime that torch has loaded.
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


def together(share: Any, data: int, tasks: int) -> None:
    """Have tasks done by the calling thread and torch's others, and return when all are through.

    Args:
        share: What each thread calls, from ``ctypes``. It holds no lock of the interpreter's.
        data: What it is called with.
        tasks: How many there are; the calling thread does a single one alone.
    """
    threads = _threads() if tasks > 1 else 1
    parallel = _parallel() if threads > 1 else None
    if parallel is None:
        share(data)
    else:
        parallel(share, data, threads, 0)


def _threads() -> int:
    """Return how many may work: as many as torch may use, and as there are cores.

    The runtime's threads do not come along into a forked child, and to ask for them there would wait for ever.
    """
    allowed = torch.get_num_threads()
    return allowed if allowed == 1 else 1 if _state["forked"] else max(1, min(allowed, _cores()))


@cache
def _cores() -> int:
    return int(usable_cores())


@cache
def _parallel() -> "Callable[[Any, int, int, int], None] | None":
    """Return what runs a function on several threads in torch's runtime, None where it has none that is known."""
    # What libtorch_cpu was linked with is found through it, whatever it is called: GNU's, LLVM's and Intel's have this.
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
