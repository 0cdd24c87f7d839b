"""``python -m benchmarks.steps``: run it, and write ``pairs.csv``, ``steps.csv`` and ``overhead.csv``."""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.facts import COLUMNS, facts, write
from benchmarks.steps.arguments import parser, settings
from benchmarks.steps.models import MEASURED, MODELS
from benchmarks.steps.parent import Runner, installed, measure
from benchmarks.steps.rows import PAIR, STEPS
from benchmarks.steps.table import WAYS
from benchmarks.steps.threads import free_memory

_MIB = 800.0
"""What a process takes at most, most of the time."""

OVERHEAD = ("profile", "model", "ratio", "low", "high", "machine", "commit", "date")


class Results:
    """Results so far, written after every round, so that an interrupted benchmark keeps them."""

    def __init__(self, into: Path, common: dict[str, str], threads: int) -> None:
        self._into = into
        self._common = common
        self._threads = threads
        self._found: dict[tuple[str, str], Runner] = {}

    def report(self, runners: list[Runner]) -> None:
        """Collect the results of the processes so far; results of ended processes stay."""
        self._found |= {(runner.model, runner.way): runner for runner in runners}
        order = [(model, way) for model in MODELS for way in WAYS]
        everything = [(key[0], self._found[key]) for key in order if key in self._found]
        common = {"threads": self._threads, **self._common}
        bare = {name: runner.end.get("peak", 0.0) for name, runner in everything if runner.way == "bare"}
        rows: list[dict[str, Any]] = [
            {"model": name, "way": runner.way, **runner.row(bare.get(name, 0.0)), **common}
            for name, runner in everything
            if runner.pairs
        ]
        write(self._into / "steps.csv", (*STEPS, *COLUMNS), rows)
        # One pair has no interval.
        profiles = [(row, WAYS[row["way"]].profile) for row in rows if int(row["pairs"]) > 1]
        write(self._into / "overhead.csv", OVERHEAD, [_overhead(row, profile) for row, profile in profiles if profile])
        pairs = [{"model": name, "way": runner.way, **pair} for name, runner in everything for pair in runner.pairs]
        write(self._into / "pairs.csv", ("model", "way", *PAIR), pairs)


def _overhead(row: dict[str, Any], profile: str) -> dict[str, Any]:
    return {**row, "profile": profile, "low": row["ratio_low"], "high": row["ratio_high"]}


def main() -> None:
    """Measure, and write the results."""
    reading = parser()
    reading.add_argument("--minutes", type=float, default=60.0, help="for all models together")
    reading.add_argument("--way", choices=tuple(WAYS), action="append")
    given = reading.parse_args()
    ways = installed(dict.fromkeys(["bare", *(given.way or WAYS)]))
    models = given.model or MEASURED
    results = Results(given.into, facts(given.threads, given.device), given.threads)
    ends = monotonic() + given.minutes * 60
    parts = _parts(models, ways)
    for number, part in enumerate(parts):
        deadline = monotonic() + (ends - monotonic()) / (len(parts) - number)
        measure(part, settings(given), deadline, results.report)


def _parts(models: Sequence[str], ways: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Return models with ways, in parts that fit into memory: all at once, so that conditions are equal for all models, or one by one."""
    every = [[(model, way) for way in ways] for model in models]
    together = [pair for part in every for pair in part]
    return [together] if len(together) * _MIB < free_memory() else every


if __name__ == "__main__":
    main()
