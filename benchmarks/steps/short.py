"""Processor time that ways of watching add to short steps.

``python -m benchmarks.steps.short`` writes ``short.csv``. Each way watches each model in its own process. A pair is a bare and a
watched block of steps, one after the other in alternating order. The time is that of all threads of the process, including what
a way leaves to other threads and one export for every tenth block.
"""

import multiprocessing
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any, Final

import torch

from benchmarks.facts import COLUMNS, facts, write
from benchmarks.steps import others
from benchmarks.steps.arguments import parser
from benchmarks.steps.models import SHORT
from benchmarks.steps.rows import interval
from benchmarks.steps.statistics import mean
from benchmarks.steps.table import WAYS
from benchmarks.steps.training import Training
from benchmarks.steps.ways import Calls, Watching, Way

STEPS: Final = {"mlp": 200, "deep": 40, "policy": 40}
"""Steps of a block; multiples of ten, so that each watched block of `standard` has as many sampled steps."""

_EXPORTED: Final = 10
_WARM: Final = 100
"""Watched blocks per export, and steps before the first block."""

OTHERS: Final = {
    "hooks without percentiles": Way(entering=others.hooks(percentiles=False)),
    "norms of all gradients, one read": Way(entering=others.norms),
}

SHORT_WAYS: Final = {
    **{name: WAYS[name] for name in ("bare", "minimal", "standard", "diagnostic", "hooks of the document")},
    **OTHERS,
    **{name: WAYS[name] for name in ("wandb.watch", "Lightning grad_norm")},
}

_MEASURED: Final = ("model", "way", "threads", "pairs", "steps", "bare_us")
_ADDED: Final = ("added", "training", "wall")
"""Microseconds added to a step: processor time of the process, that of the training thread, wall time."""

FIELDS: Final = (*_MEASURED, *(f"{name}{end}" for name in _ADDED for end in ("", "_low", "_high")), *COLUMNS)

Block = tuple[float, float, float]


class Pairs:
    """Pairs of blocks of one model, watched in one way."""

    def __init__(self, training: Training, watching: Watching, steps: int) -> None:
        self._training = training
        self._watching = watching
        self._steps = steps
        self._watched = 0

    def bare(self) -> Block:
        """Return the microseconds per step of a bare block."""
        return self._timed(lambda: self._training.steps(self._steps, Calls()))

    def watched(self) -> Block:
        """Return the microseconds per step of a watched block, with what it leaves to other threads."""
        self._watched += 1

        def block() -> None:
            with self._watching.attached() as calls:
                self._training.steps(self._steps, calls)
            self._watching.hurry()
            if self._watching.exporter is not None and self._watched % _EXPORTED == 0:
                self._watching.exporter.begin()
                self._watching.exporter.wait()

        return self._timed(block)

    def _timed(self, block: Any) -> Block:
        before = process_time(), thread_time(), perf_counter()
        block()
        after = process_time(), thread_time(), perf_counter()
        process, thread, wall = (1e6 * (b - a) / self._steps for a, b in zip(before, after, strict=True))
        return process, thread, wall


def measured(model: str, way: str, pairs: int) -> dict[str, Any]:
    """Return the columns of a way and a model."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    training = Training(model, "cpu")
    found: list[tuple[Block, Block]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        SHORT_WAYS[way].entering(training.network, training.optimizer, Path(name)) as watching,
    ):
        blocks = Pairs(training, watching, STEPS[model])
        training.steps(_WARM, Calls())
        for _ in range(_EXPORTED):  # what is loaded at the first samples and the first export
            blocks.watched()
        for pair in range(pairs):
            if pair % 2:
                found.append((blocks.bare(), blocks.watched()))
            else:
                watched = blocks.watched()
                found.append((blocks.bare(), watched))
    columns: dict[str, Any] = {"bare_us": f"{mean([bare[0] for bare, _ in found]).value:.1f}"}
    for index, name in enumerate(_ADDED):
        added = mean([watched[index] - bare[index] for bare, watched in found])
        columns |= interval(name, added, ".1f")
    return columns


def _serve(connection: Connection, *arguments: Any) -> None:
    connection.send(measured(*arguments))


def _apart(*arguments: Any) -> Mapping[str, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, *arguments))
    process.start()
    theirs.close()
    found: Mapping[str, Any] = ours.recv()
    process.join()
    return found


def main() -> None:
    """Measure, and write the results after each run."""
    reading = parser()
    reading.add_argument("--pairs", type=int, default=100, help="pairs of blocks for each run; a multiple of ten")
    given = reading.parse_args()
    rows: list[dict[str, Any]] = []
    for model in SHORT:
        for name, way in SHORT_WAYS.items():
            if way.package is not None and find_spec(way.package.replace("-", "_")) is None:
                print(model, name, "is not installed", file=sys.stderr)
                continue
            columns = _apart(model, name, given.pairs)
            rows.append(
                {"model": model, "way": name, "threads": 1, "pairs": given.pairs, "steps": STEPS[model], **columns}
                | facts(1)
            )
            print(model, name, columns, file=sys.stderr, flush=True)
            write(given.into / "short.csv", FIELDS, rows)


if __name__ == "__main__":
    main()
