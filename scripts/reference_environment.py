"""Reference page of environment variables, and data of the costs of profiles for the package."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.facts import read
from benchmarks.goals import PROFILES, SHORT_STEPS
from nissa.config import PROFILES as PRESETS
from nissa.config import TelemetryConfig, describe
from nissa.config.profile_costs import COLUMNS, ProfileCost, ShortStepCost
from nissa.doctor.variables import LAUNCHERS, OPENTELEMETRY, OTHERS, OURS, Variable
from scripts.variable_tests import TESTS, UNUSED

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def environment(table: Table) -> str:
    """Return the page about variables."""
    settings = [[f"`{each.variable}`", f"`{each.path}`"] for each in describe(TelemetryConfig)]
    return (
        "# Environment variables\n\n"
        "An empty variable counts as not set. `{A,B}` stands for several variables. `nissa doctor` lists the "
        "OpenTelemetry variables that are set, and the exporters that follow from them.\n\n"
        f"## Nissa\n\n{_rows(OURS, table)}\n"
        "Any other name that begins with `NISSA_` and is not one of the settings below is an error.\n\n"
        "## Settings\n\nThe meaning and the allowed values of each setting are in "
        f"[the reference of settings](configuration.md).\n\n{table(['variable', 'setting'], settings)}\n"
        f"## Launchers\n\nSet by torchrun, Slurm and MPI.\n\n{_rows(LAUNCHERS, table)}\n"
        f"## Other libraries\n\n{_rows(OTHERS, table)}\n"
        f"{_opentelemetry(table)}"
    )


def _rows(variables: Sequence[Variable], table: Table) -> str:
    return table(["variable", "meaning"], [[f"`{each.name}`", each.meaning] for each in variables])


def _opentelemetry(table: Table) -> str:
    rows = [
        [f"`{each.name}`", each.meaning, " ".join(f"`{test}`" for test in TESTS[each.name])] for each in OPENTELEMETRY
    ]
    return (
        "## OpenTelemetry\n\n[Send telemetry to a collector, to Prometheus or to files](../how-to/exporters.md) shows "
        "the usual combinations. The last column names the tests that show the effect.\n\n"
        f"{table(['variable', 'effect in a run', 'tested by'], rows)}\n"
        "## OpenTelemetry, without effect\n\nA run does not use these variables.\n\n"
        f"{table(['variable', 'reason'], [[f'`{each.name}`', each.meaning] for each in UNUSED])}"
    )


def overhead(results: Path) -> str | None:
    """Return the costs of profiles as JSON for the package; None without results.

    Raises:
        ConfigurationError: A line of the results cannot be used.
        ValueError: The columns are not the expected ones.
    """
    if not results.exists():
        return None
    with results.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file)
        if tuple(lines.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{results.name} must have the columns {', '.join(COLUMNS)}.")
        found = [ProfileCost.from_row(line) for line in lines]
    own = {(row["way"], row["model"]): row for row in read(results.with_name("within.csv"))}
    rows = [asdict(_beside(each, own.get((each.profile, each.model), {}))) for each in found]
    return json.dumps(rows, indent=2) + "\n"


def _beside(cost: ProfileCost, own: Mapping[str, str]) -> ProfileCost:
    """Return a cost with its goal, and with the time in Nissa's own code if measured."""
    value, low, high = (float(own[name]) if own else None for name in ("own", "own_low", "own_high"))
    return replace(cost, own=value, own_low=low, own_high=high, goal=PROFILES["cpu"].get(cost.profile))


def short_steps(results: Path) -> str | None:
    """Return what profiles add to short steps as JSON for the package; None without results."""
    rows = [_short_step(row) for row in read(results) if row["way"] in PRESETS]
    return json.dumps([asdict(row) for row in rows], indent=2) + "\n" if rows else None


def _short_step(row: Mapping[str, str]) -> ShortStepCost:
    bare, added, low, high = (float(row[name]) for name in ("bare_us", "added", "added_low", "added_high"))
    goal = SHORT_STEPS.get((row["model"], row["way"]))
    return ShortStepCost(
        row["way"], row["model"], bare, added, low, high, row["machine"], row["commit"], row["date"], goal
    )
