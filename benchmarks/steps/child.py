"""Process that trains one model, watched in one way: trains pairs of blocks on request."""

import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from random import random
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final

import torch

from benchmarks.steps.table import WAYS
from benchmarks.steps.threads import Spent, settle
from benchmarks.steps.training import Training
from benchmarks.steps.ways import Calls, Watching

if TYPE_CHECKING:
    from collections.abc import Callable

LEAD: Final = 1
"""Steps at the begin of a block that are not timed. What a step leaves to other threads is done while the next one trains:
with a step before them, timed steps hold the background of as many steps as they are."""

TIMED: Final = 2
"""Timed steps of a block. A watched block is of three steps, and three and ten have no common divisor: in `standard`, which
samples every tenth step, each of the ten is the first, the second and the third of a block equally often."""

EXPORT_SECONDS: Final = 15.0
"""Timed, watched seconds between two exports: the default interval of all exporters."""

_WARM = 3


class Child:
    """Executes the requests of the parent."""

    def __init__(self, training: Training, watching: Watching) -> None:
        self._training = training
        self._watching = watching
        self._pairs = 0
        self._watched = 0.0
        self._next_export = random() * EXPORT_SECONDS  # noqa: S311 - no secret
        self.steps = 0

    def count(self, every: int) -> dict[str, dict[str, float]]:
        """Return the operations of a bare and a watched sampling interval."""
        training = self._training
        with training.timed(None) as calls:
            one = training.counted(1, calls)
        with training.timed(self._watching) as calls:
            training.steps(max(every, _WARM), calls)  # the first sample allocates what the others use
            watched = training.counted(every, calls)
        self.steps += max(every, _WARM) + 2 * every
        if self._watching.exporter is not None:
            self._watching.exporter.begin()  # the first one loads what all others use
        self._settled()
        training.forget_peak()
        return {"bare": {name: value * every for name, value in one.items()}, "watched": watched}

    def turn(self, pairs: int) -> list[dict[str, float]]:
        """Return the times of pairs of blocks, after a step that refills the caches."""
        self._training.steps(1, Calls())
        settle()
        found = [self._pair() for _ in range(pairs)]
        self._training.trim()
        return found

    def _pair(self) -> dict[str, float]:
        order = (False, True) if self._pairs % 2 == 0 else (True, False)  # what grows over time weighs on both
        self._pairs += 1
        before = self._spent()
        found = {key: value for watched in order for key, value in self._block(watched=watched).items()}
        spent = self._spent().since(before)
        # All threads are idle at both ends, so the difference is the background work of all watched steps, timed or not.
        # Exports are begun only for timed steps.
        return found | {"background": spent.steps * TIMED / (LEAD + TIMED) + spent.exports}

    def _block(self, *, watched: bool) -> dict[str, float]:
        training = self._training
        with training.timed(self._watching if watched else None) as calls:
            training.steps(LEAD, calls)
            inside, busy, began = training.inside, process_time(), perf_counter()
            if watched:
                self._export()
            training.steps(TIMED, calls)
            seconds, busy = perf_counter() - began, process_time() - busy
        inside = training.inside - inside
        self._settled()
        if not watched:
            return {"bare": seconds, "bare_busy": busy}
        self._watched += seconds
        self.steps += LEAD + TIMED
        return {"watched": seconds, "watched_busy": busy, "inside": inside}

    def _export(self) -> None:
        exporter = self._watching.exporter
        if exporter is not None and self._watched >= self._next_export:
            self._next_export += EXPORT_SECONDS
            exporter.begin()

    def _settled(self) -> None:
        self._watching.hurry()
        if self._watching.exporter is not None:
            self._watching.exporter.wait()
        settle()

    def _spent(self) -> Spent:
        return self._watching.spent()


def serve(connection: Connection, way: str, model: str, settings: dict[str, Any]) -> None:
    """Call the requested methods of `Child` until None is received."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells of devices that are not there
    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    training = Training(model, settings["device"], settings["batches"])
    connection.send("loaded")
    connection.recv()  # processes load side by side, but train one at a time
    training.steps(_WARM, Calls())
    before = training.peak()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with WAYS[way].entering(training.network, training.optimizer, folder) as watching:
            child = Child(training, watching)
            connection.send("ready")
            _answer(connection, child)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        connection.send({"peak": training.peak() - before, "bytes": size, "steps": child.steps})


def _answer(connection: Connection, child: Child) -> None:
    methods: dict[str, Callable[..., Any]] = {"turn": child.turn, "count": child.count}
    while (asked := connection.recv()) is not None:
        method, args = asked
        connection.send(methods[method](*args))
