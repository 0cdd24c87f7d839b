"""Training of a model, with the operations of a step and the peak memory."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import torch
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.steps.models import MODELS
from benchmarks.steps.ways import Calls, Watching

READS: Final = {"aten::_local_scalar_dense", "aten::equal"}
"""Operations that return a number to the host. On a device, their copies to the host are counted instead."""

_PROCESS: Final = Path("/proc/self")
_FORGET_PEAK: Final = "5"


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Counts the operations of the training thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.count = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a call."""
        self.count += 1
        return func(*args, **(kwargs or {}))


class Training:
    """A model that trains.

    Args:
        model: Name of the model.
        device: Device to train on.
        batches: Number of batches per step, whose gradients are added; makes a step as long as that of a larger model.

    Attributes:
        inside: Seconds that the training thread spent in the hooks of a way around ``optimizer.step()``.
    """

    def __init__(self, model: str, device: str, batches: int = 1) -> None:
        self.device = device
        self._batches = batches
        self.network, self._loss = MODELS[model](device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self.inside = 0.0
        self._began = 0.0

    @contextmanager
    def timed(self, watching: Watching | None) -> Iterator[Calls]:
        """Attach a way, or nothing, between hooks that measure its time."""
        hooks = [
            self.optimizer.register_step_pre_hook(self._begin),
            self.optimizer.register_step_post_hook(self._begin),
        ]
        if watching is None:
            yield Calls()
        else:
            with watching.attached() as calls:
                hooks += [
                    self.optimizer.register_step_pre_hook(self._end),
                    self.optimizer.register_step_post_hook(self._end),
                ]
                yield calls
        for hook in hooks:
            hook.remove()

    def step(self, calls: Calls) -> None:
        """Train one step."""
        loss = self._loss(self.network)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as above
        for _ in range(self._batches - 1):
            loss = self._loss(self.network)
            loss.backward()  # type: ignore[no-untyped-call]  # as above
        self._begin()
        calls.before(loss)
        self._end()
        self.optimizer.step()
        self._begin()
        calls.after()
        self._end()

    def steps(self, count: int, calls: Calls) -> None:
        """Train steps, and wait for the device."""
        for _ in range(count):
            self.step(calls)
        if self.device == "cuda":
            torch.cuda.synchronize()

    def counted(self, count: int, calls: Calls) -> dict[str, float]:
        """Return the operations of steps. It trains twice as many: one half counts all operations, the other reads."""
        with Counting() as counting:
            self.steps(count, calls)
        # One profile per step, because the memory of a longer profile is not returned to the system and would raise the peak.
        return {"operations": counting.count, "reads": sum(self._reads(calls) for _ in range(count))}

    def _reads(self, calls: Calls) -> int:
        with profile() as profiled:
            self.steps(1, calls)
        names = [(event.key, event.count) for event in profiled.key_averages()]
        if self.device == "cuda":
            return sum(number for name, number in names if name.startswith("Memcpy DtoH"))
        return sum(number for name, number in names if name in READS)

    def peak(self) -> float:
        """Return the peak memory since the last reset, in MiB, of the process or of the device."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        with suppress(OSError):
            for line in (_PROCESS / "status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def forget_peak(self) -> None:
        """Reset the peak memory, if the system allows it."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        self.trim()
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text(_FORGET_PEAK, encoding="ascii")

    def trim(self) -> None:
        """Return free memory to the system, so that many processes fit into memory."""
        with suppress(OSError, AttributeError):  # a C library that has no such thing
            ctypes.CDLL(None).malloc_trim(0)

    def _begin(self, *_: object) -> None:
        self._began = perf_counter()

    def _end(self, *_: object) -> None:
        self.inside += perf_counter() - self._began
