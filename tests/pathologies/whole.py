"""All runs, and what came of them: one line per run and one per rule, in ``benchmarks/results``."""

import csv
import multiprocessing
import platform
import subprocess
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from tests.pathologies.healthy import RECIPES
from tests.pathologies.kinds import KINDS
from tests.pathologies.running import train
from tests.pathologies.scoring import (
    HEALTHY_SCORING,
    HEALTHY_TUNING,
    SCORING_SEEDS,
    TUNING_SEEDS,
    Score,
    of_kind,
    of_recipe,
    random_seed,
    table,
)

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "benchmarks" / "results"
RUNS: Final = RESULTS / "pathologies.csv"
TABLE: Final = RESULTS / "rules.csv"

_Job = tuple[str, int, int]


def run(job: _Job) -> tuple[Score, bool]:
    """Return the score of one run, and whether it learned if it should have."""
    what, index, number = job
    if what == "kind":
        kind = KINDS[index]
        return of_kind(kind, number, train(kind.make, random_seed(kind.name, number))), True
    recipe = RECIPES[index]
    outcome = train(recipe.make, random_seed(recipe.name, number))
    return of_recipe(recipe, number, outcome), recipe.learned(outcome)


def main() -> int:
    """Run, write, and say what was found."""
    numbers = sorted((*TUNING_SEEDS, *SCORING_SEEDS))
    jobs: list[_Job] = [("kind", index, number) for index in range(len(KINDS)) for number in numbers]
    jobs += [("recipe", index, number) for index in range(len(RECIPES)) for number in (HEALTHY_TUNING, HEALTHY_SCORING)]
    # Spawned, since threads of torch do not survive a fork.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(run, jobs))
    unlearned = [score.name for score, learned in done if not learned]
    scores = [score for score, _ in done]
    _write(RUNS, [_plain(score) for score in scores])
    where = {"machine": _machine(), "torch": torch.__version__, "commit": _commit()}
    _write(TABLE, [asdict(row) | where for row in table(scores)])
    for row in table(scores):
        print(row)  # noqa: T201 - it is a command
    print(f"{len(unlearned)} healthy runs did not learn: {unlearned}")  # noqa: T201
    return len(unlearned)


def _plain(score: Score) -> dict[str, object]:
    false = {each.flag: each.step for each in reversed(score.false)}
    return {
        "run": score.name,
        "number": score.random_seed,
        "half": "tuning" if score.tuning else "scoring",
        "rule": score.rule,
        "steps_until_noticed": score.noticed,
        "false_alarms": " ".join(f"{flag}@{step}" for flag, step in sorted(false.items())),
    }


def _write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{names[0] if names else platform.machine()}; {len(names)} cores"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    # A plus says that there were changes: those with which this was measured.
    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "--", "src", "tests/pathologies") else ""
    )
