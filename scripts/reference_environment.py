"""The reference of environment variables, and the costs of profiles: both from what the package itself reads."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.facts import read
from benchmarks.goals import PROFILES
from nissa.config import TelemetryConfig, describe
from nissa.config.profile_costs import COLUMNS, ProfileCost
from nissa.doctor.variables import LAUNCHERS, OPENTELEMETRY, OTHERS, OURS, Variable

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def environment(table: Table) -> str:
    """Return the page about variables."""
    settings = [[f"`{each.variable}`", f"`{each.path}`"] for each in describe(TelemetryConfig)]
    return (
        "# Environment variables\n\n"
        "An empty variable counts as not set. `{A,B}` stands for several variables. `nissa doctor` shows those of "
        "OpenTelemetry that are set, and what they come to.\n\n"
        f"## Nissa\n\n{_rows(OURS, table)}\n"
        "Any other name that begins with `NISSA_` and is none of the settings below is an error.\n\n"
        f"## Settings\n\nWhat each does, and may be, is in [the reference of settings](configuration.md).\n\n"
        f"{table(['variable', 'setting'], settings)}\n"
        f"## Launchers\n\nSet by torchrun, Slurm and MPI.\n\n{_rows(LAUNCHERS, table)}\n"
        f"## Other libraries\n\n{_rows(OTHERS, table)}\n"
        "## OpenTelemetry\n\nWhat each does in a run, and the test that shows it, is in "
        f"[the guide about exporters](../how-to/exporters.md).\n\n{_rows(OPENTELEMETRY, table)}"
    )


def _rows(variables: Sequence[Variable], table: Table) -> str:
    return table(["variable", "meaning"], [[f"`{each.name}`", each.meaning] for each in variables])


def overhead(results: Path) -> str | None:
    """Return what the package is told about the costs of profiles; None where there are no results.

    Raises:
        ConfigurationError: A line of the results cannot be used.
        ValueError: Its columns are others.
    """
    if not results.exists():
        return None
    with results.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file)
        if tuple(lines.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{results.name} must have the columns {', '.join(COLUMNS)}.")
        found = [ProfileCost.from_row(line) for line in lines]
    own = {(row["way"], row["model"]): row for row in read(results.with_name("within.csv"))}
    told = [asdict(_beside(each, own.get((each.profile, each.model), {}))) for each in found]
    return json.dumps(told, indent=2) + "\n"


def _beside(cost: ProfileCost, own: Mapping[str, str]) -> ProfileCost:
    """Return a cost with the goal, and with the time in our own code where that was measured."""
    value, low, high = (float(own[name]) if own else None for name in ("own", "own_low", "own_high"))
    return replace(cost, own=value, own_low=low, own_high=high, goal=PROFILES["cpu"].get(cost.profile))
