"""Overhead by the exported ratio, and by a clock around Nissa's code, in runs with default settings.

``python -m benchmarks.steps.within`` writes ``within.csv``. Each profile watches each model in its own process, at every step,
with exports by the default timer. Time is divided into windows of one export interval, so that each contains one export.
The first window is omitted, because lazy imports happen in it.
"""

import multiprocessing
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, time_ns
from typing import Any, Final

import torch

from benchmarks.facts import COLUMNS, facts, write
from benchmarks.steps.arguments import parser, settings
from benchmarks.steps.models import MEASURED
from benchmarks.steps.rows import interval
from benchmarks.steps.statistics import extra, mean
from benchmarks.steps.table import WAYS
from benchmarks.steps.training import Training
from nissa.recordings import read

WINDOW: Final = 15.0
"""Default seconds between two exports."""

WITHIN: Final = (
    "model",
    "way",
    "threads",
    "windows",
    *(f"{name}{end}" for name in ("own", "told", "factor") for end in ("", "_low", "_high")),
)
"""Columns: time in Nissa's code, as a fraction of the time outside; exported ratio, as a fraction of all time; their quotient."""

Window = Mapping[str, float]
"""Seconds of a window; of the training thread in Nissa's code; CPU seconds of Nissa's threads; mean exported ratio."""


def watched(model: str, way: str, settings: Mapping[str, Any], windows: int) -> list[Window]:
    """Train for some windows and return their measurements."""
    from nissa.gradients.overhead import thread_times  # noqa: PLC0415 - processes that only wait do without

    entering = WAYS[way].timed
    assert entering is not None  # noqa: S101 - the caller asks for those that have one
    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    training = Training(model, settings["device"], settings["batches"])
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with entering(training.network, training.optimizer, folder) as watching, training.timed(watching) as calls:
            for _ in range(1 + windows):
                at, inside, threads = time_ns(), training.inside, sum(thread_times().values())
                began = perf_counter()
                while perf_counter() - began < WINDOW:
                    training.steps(1, calls)
                found.append(
                    {
                        "seconds": perf_counter() - began,
                        "inside": training.inside - inside,
                        "threads": (sum(thread_times().values()) - threads) / 1e9,
                        "began": at,
                        "ended": time_ns(),
                    }
                )
        points = exported_ratios(folder)
    for window in found:
        began, ended = window.pop("began"), window.pop("ended")
        ratios = [ratio for when, ratio in points if began <= when <= ended]
        window["told"] = sum(ratios) / len(ratios) if ratios else float("nan")
    return list(found[1:])


def exported_ratios(folder: Path) -> list[tuple[int, float]]:
    """Return the points of ``nissa.overhead.ratio`` in files, with their times."""
    return sorted(
        (int(time), float(value))
        for file in folder.rglob("metrics.jsonl")
        for stream in read(file.parent).of("nissa.overhead.ratio")
        for time, value in zip(stream.times, stream.values, strict=True)
    )


def row(windows: Sequence[Window]) -> dict[str, Any]:
    """Return the columns of windows."""
    ours = [window["inside"] + window["threads"] for window in windows]
    outside = [window["seconds"] - window["inside"] for window in windows]
    own = extra([a + b for a, b in zip(outside, ours, strict=True)], outside)
    shares = [each / window["seconds"] for each, window in zip(ours, windows, strict=True)]
    exported = [window["told"] for window in windows]
    factor = extra([a + b for a, b in zip(shares, exported, strict=True)], shares)
    return {
        "windows": len(windows),
        **interval("own", own, ".6f"),
        **interval("told", mean(exported), ".6f"),
        **interval("factor", factor, ".4f"),
    }


def _serve(connection: Connection, *arguments: Any) -> None:
    connection.send(watched(*arguments))


def _apart(*arguments: Any) -> list[Window]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, *arguments))
    process.start()
    theirs.close()
    found: list[Window] = ours.recv()
    process.join()
    return found


def main() -> None:
    """Measure, and write the results after each run."""
    reading = parser()
    reading.add_argument("--windows", type=int, default=4, help="of 15 s, for each run, besides the first")
    given = reading.parse_args()
    common = {"threads": given.threads, **facts(given.threads, given.device)}
    rows: list[dict[str, Any]] = []
    for model in given.model or MEASURED:
        for name, way in WAYS.items():
            if way.timed is None:
                continue
            rows.append(
                {"model": model, "way": name, **row(_apart(model, name, settings(given), given.windows)), **common}
            )
            print(model, name, rows[-1]["own"], rows[-1]["told"], file=sys.stderr, flush=True)
            write(given.into / "within.csv", (*WITHIN, *COLUMNS), rows)


if __name__ == "__main__":
    main()
