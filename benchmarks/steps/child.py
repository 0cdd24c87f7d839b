"""One way of watching one model, in a process of its own: trains a few steps whenever it is asked to."""

import resource
import tempfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.steps.models import MODELS
from benchmarks.steps.ways import WAYS

READS = {"aten._local_scalar_dense.default", "aten.equal.default", "aten.is_nonzero.default"}
"""Operations that hand a device's number to the host."""


class Counting(TorchDispatchMode):
    """Counts what the training thread dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a call."""
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def serve(connection: Connection, way: str, model: str, threads: int) -> None:
    """Answer ``("block", steps)``, ``("count", steps)`` and ``("end", None)``."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    network, loss_of = MODELS[model]()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with WAYS[way].watching(network, optimizer, folder) as before:

            def step() -> None:
                loss = loss_of(network)
                optimizer.zero_grad()
                loss.backward()
                before(loss)
                optimizer.step()

            connection.send("ready")
            done = _answer(connection, step)
        connection.send({"bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()), **done})


def _answer(connection: Connection, step: Callable[[], None]) -> dict[str, float]:
    steps = 0
    while True:
        what, count = connection.recv()
        if what == "end":
            return {"peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "steps": steps}
        steps += count
        connection.send(_block(step, count) if what == "block" else _counts(step, count))


def _block(step: Callable[[], None], count: int) -> dict[str, float]:
    began, busy = perf_counter(), process_time()
    for _ in range(count):
        step()
    return {"seconds": perf_counter() - began, "busy": process_time() - busy}


def _counts(step: Callable[[], None], count: int) -> dict[str, float]:
    with Counting() as counting:
        for _ in range(count):
            step()
    reads = sum(number for name, number in counting.counts.items() if name in READS)
    return {"operations": counting.counts.total(), "reads": reads}
