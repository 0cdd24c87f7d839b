"""``python -m benchmarks.steps``: run it, and write ``benchmarks/results/{overhead,steps}.csv``."""

import argparse
import csv
import multiprocessing
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.steps.child import serve
from benchmarks.steps.models import MODELS
from benchmarks.steps.statistics import Estimate, median
from benchmarks.steps.ways import WAYS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

RESULTS = Path(__file__).resolve().parent.parent / "results"
PACKAGES = {
    "wandb.watch": "wandb",
    "Lightning grad_norm": "lightning",
    "pulsegrad": "pulsegrad",
    "torchtel": "torchtel",
}
STEPS = 10
"""Steps of a block: one sample of `standard`."""

COUNTED = 10
"""Steps that are counted."""

FIELDS = (
    "model",
    "way",
    "version",
    "step_ms",
    "ratio",
    "low",
    "high",
    "busy_ratio",
    "busy_low",
    "busy_high",
    "added_ms_per_sample",
    "added_low",
    "added_high",
    "reads_per_sample",
    "operations_per_sample",
    "extra_peak_mib",
    "bytes_per_sample",
    "rounds",
    "machine",
    "torch",
    "commit",
    "date",
)
OVERHEAD = ("profile", "model", "ratio", "low", "high", "machine", "commit", "date")


class Runner:
    """A process that trains."""

    def __init__(self, way: str, model: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.connection: Connection = ours
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, way, model, threads))
        self.process.start()
        theirs.close()
        self.connection.recv()

    def ask(self, what: str, count: int | None = None) -> dict[str, float]:
        """Return the answer."""
        self.connection.send((what, count))
        answer: dict[str, float] = self.connection.recv()
        return answer

    def end(self) -> dict[str, float]:
        """Return what it says at its end."""
        answer = self.ask("end")
        self.process.join()
        return answer


def measure(model: str, ways: Iterable[str], rounds: int, threads: int) -> Iterable[dict[str, Any]]:
    """Run the rounds of one model; yield a row for each way."""
    runners = {way: Runner(way, model, threads) for way in ways}
    counts = {way: runner.ask("count", COUNTED) for way, runner in runners.items()}
    for runner in runners.values():
        runner.ask("block", STEPS)
    blocks: dict[str, list[dict[str, float]]] = {way: [] for way in runners}
    order = list(runners)
    for number in range(rounds):
        random.shuffle(order)
        for way in order:
            blocks[way].append(runners[way].ask("block", STEPS))
        print(f"{model}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    ends = {way: runner.end() for way, runner in runners.items()}
    for way in runners:
        yield {"model": model, "way": way, "rounds": rounds, **_row(way, blocks, counts, ends)}


def _row(
    way: str,
    blocks: Mapping[str, list[dict[str, float]]],
    counts: Mapping[str, dict[str, float]],
    ends: Mapping[str, dict[str, float]],
) -> dict[str, Any]:
    pairs = list(zip(blocks[way], blocks["bare"], strict=True))
    every = WAYS[way].every
    step = median([one["seconds"] / STEPS for one in blocks[way]])
    ratio = median([one["seconds"] / other["seconds"] - 1 for one, other in pairs])
    busy = median([one["busy"] / other["busy"] - 1 for one, other in pairs])
    added = median([(one["seconds"] - other["seconds"]) * every / STEPS * 1000 for one, other in pairs])
    samples = ends[way]["steps"] / every
    return {
        "step_ms": f"{step.value * 1000:.1f}",
        **_interval("ratio", "", ratio, ".4f"),
        **_interval("busy_ratio", "busy_", busy, ".4f"),
        **_interval("added_ms_per_sample", "added_", added, ".2f"),
        **{
            f"{name}_per_sample": round((counts[way][name] - counts["bare"][name]) * every / COUNTED)
            for name in ("reads", "operations")
        },
        "extra_peak_mib": f"{(ends[way]['peak_kib'] - ends['bare']['peak_kib']) / 1024:.0f}",
        "bytes_per_sample": round(ends[way]["bytes"] / samples),
    }


def _interval(name: str, prefix: str, estimate: Estimate, form: str) -> dict[str, str]:
    return {
        name: format(estimate.value, form),
        f"{prefix}low": format(estimate.low, form),
        f"{prefix}high": format(estimate.high, form),
    }


def _installed(ways: Iterable[str]) -> list[str]:
    absent = [way for way in ways if way in PACKAGES and find_spec(PACKAGES[way]) is None]
    for way in absent:
        print(f"{way} is left out: {PACKAGES[way]} is not installed", file=sys.stderr)
    return [way for way in ways if way not in absent]


def facts(threads: int) -> dict[str, str]:
    """Return what was measured where."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    return {
        "machine": f"{_processor()}; {os.cpu_count()} cores; {threads} threads",
        "torch": torch.__version__,
        "commit": commit,
        "date": datetime.now(tz=UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(way: str) -> str:
    if way in PACKAGES:
        try:
            return version(PACKAGES[way])
        except PackageNotFoundError:
            return ""
    return ""


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", choices=tuple(MODELS), action="append")
    parser.add_argument("--way", choices=tuple(WAYS), action="append")
    parser.add_argument("--into", type=Path, default=RESULTS)
    given = parser.parse_args()
    ways = _installed(dict.fromkeys(["bare", *(given.way or WAYS)]))
    told = facts(given.threads)
    rows = [
        {**row, "version": _version(row["way"]), **told}
        for model in given.model or MODELS
        for row in measure(model, ways, given.rounds, given.threads)
    ]
    given.into.mkdir(parents=True, exist_ok=True)
    _write(given.into / "steps.csv", FIELDS, rows)
    profiles = [{**row, "profile": WAYS[row["way"]].profile} for row in rows if WAYS[row["way"]].profile]
    _write(given.into / "overhead.csv", OVERHEAD, profiles)


def _write(path: Path, fields: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
