"""One way of watching one model, in a process of its own: trains a block whenever it is asked to, watched or bare."""

import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time, sleep, time_ns
from typing import Any

import torch
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.steps.models import MODELS
from benchmarks.steps.table import WAYS
from benchmarks.steps.ways import Calls, Watching

READS = {"aten::_local_scalar_dense", "aten::equal"}
"""Operations that hand a number to the host; on a device, copies to the host are counted instead, which they make."""

_SETTLING = 0.1
"""Seconds after a watched block in which what it left to other threads ends."""


class Counting(TorchDispatchMode):
    """Counts what the training thread dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a call."""
        self.count += 1
        return func(*args, **(kwargs or {}))


class Training:
    """A model that trains.

    Attributes:
        inside: Seconds that the training thread spent in what a way attached around ``optimizer.step()``.
    """

    def __init__(self, model: str, device: str) -> None:
        self.device = device
        self.network, self._loss = MODELS[model](device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self.inside = 0.0
        self._began = 0.0

    @contextmanager
    def timed(self, watching: Watching | None) -> Iterator[Calls]:
        """Attach a way, or nothing, between hooks that take the time."""
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
        loss.backward()
        self._begin()
        calls.before(loss)
        self._end()
        self.optimizer.step()
        self._begin()
        calls.after()
        self._end()

    def wait(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> float:
        """Return the most memory used so far, in MiB: of the process, or of the device."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def _begin(self, *_: object) -> None:
        self._began = perf_counter()

    def _end(self, *_: object) -> None:
        self.inside += perf_counter() - self._began


class Child:
    """Answers the parent."""

    def __init__(self, training: Training, watching: Watching) -> None:
        self._training = training
        self._watching = watching
        self.steps = 0
        self.blocks: list[tuple[int, int]] = []

    def pair(self, count: int, *, bare_first: bool) -> dict[str, float]:
        """Train a bare and a watched block of as many steps; return what both took."""
        order = (False, True) if bare_first else (True, False)
        return {key: value for watched in order for key, value in self._block(count, watched=watched).items()}

    def count(self, count: int, *, watched: bool) -> dict[str, float]:
        """Return what two blocks dispatch: of one all operations, of the other what reads, some of which hides from Python."""
        training = self._training
        with training.timed(self._watching if watched else None) as calls:
            with Counting() as counting:
                for _ in range(count):
                    training.step(calls)
            with profile() as profiled:
                for _ in range(count):
                    training.step(calls)
        self.steps += 2 * count if watched else 0
        names = [(event.key, event.count) for event in profiled.key_averages()]
        copies = sum(number for name, number in names if name.startswith("Memcpy DtoH"))
        reads = copies if training.device == "cuda" else sum(number for name, number in names if name in READS)
        return {"operations": counting.count, "reads": reads}

    def _block(self, count: int, *, watched: bool) -> dict[str, float]:
        training, background = self._training, self._watching.background
        with training.timed(self._watching if watched else None) as calls:
            training.wait()
            inside, threads = training.inside, background() if background else 0.0
            at, busy, began = time_ns(), process_time(), perf_counter()
            if watched:
                self._watching.export()  # of what the block before has left, while this one trains
            for _ in range(count):
                training.step(calls)
            training.wait()
            seconds, busy = perf_counter() - began, process_time() - busy
        if not watched:
            return {"bare": seconds, "bare_busy": busy}
        self.steps += count
        self.blocks.append((at, time_ns()))
        sleep(_SETTLING)
        own = training.inside - inside
        used = background() - threads if background else 0.0
        return {"watched": seconds, "watched_busy": busy, "inside": own, "background": used}


def serve(connection: Connection, way: str, model: str, settings: dict[str, Any]) -> None:
    """Answer the methods of `Child` by name, until there is None."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells of devices that are not there
    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    training = Training(model, settings["device"])
    connection.send("loaded")
    connection.recv()  # processes load side by side, but train one at a time
    for _ in range(3):
        training.step(Calls())
    peak = training.peak()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with WAYS[way].entering(training.network, training.optimizer, folder) as watching:
            child = Child(training, watching)
            connection.send("ready")
            _answer(connection, child)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        live = list(_live(folder, child.blocks))
        connection.send({"peak": training.peak() - peak, "bytes": size, "steps": child.steps, "live": live})


def _answer(connection: Connection, child: Child) -> None:
    methods: dict[str, Callable[..., dict[str, float]]] = {"pair": child.pair, "count": child.count}
    while (asked := connection.recv()) is not None:
        method, args, kwargs = asked
        connection.send(methods[method](*args, **kwargs))


def _live(folder: Path, blocks: list[tuple[int, int]]) -> Iterator[list[float]]:
    """Yield for each watched block what the run itself told of its cost; the first point of a block is of before, too."""
    points = [
        (int(point["timeUnixNano"]), float(point["asDouble"]))
        for file in folder.rglob("metrics.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
        for resources in json.loads(line)["resourceMetrics"]
        for scope in resources["scopeMetrics"]
        for metric in scope["metrics"]
        if metric["name"] == "nissa.overhead.ratio"
        for point in metric["gauge"]["dataPoints"]
    ]
    for began, ended in blocks:
        inside = sorted(point for point in points if began <= point[0] <= ended)
        if len(inside) > 1:
            yield [value for _, value in inside[1:]]
