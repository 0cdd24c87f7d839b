"""What profiles cost, as it was measured: read from what the committed benchmark results were made into.

``benchmarks/results/overhead.csv`` has one line for each profile and model, under `COLUMNS`. ``make generate`` turns it,
with the time in our own code of ``within.csv`` and the goals, into ``overhead.json`` beside this file, which is installed
with the package; without results there is no such file.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Final, Self

from nissa.config.files import PROFILES
from nissa.errors import ConfigurationError

FILE: Final = "overhead.json"


@dataclass(frozen=True, slots=True)
class ProfileCost:
    """What a profile cost in one benchmark.

    Args:
        profile: Which one.
        model: What was trained.
        ratio: Time that a step took longer than without Nissa, as a fraction of the step without it: 0.012 is 1.2 %.
        low: Lower end of the 95 % confidence interval of the ratio; noise may put it below zero.
        high: Upper end of it.
        machine: What it ran on: processor or accelerator, cores, versions.
        commit: Revision that was measured.
        date: Day, as in 2026-11-24.
        own: Time in Nissa's own code by a clock around it, as a fraction of the rest: told where noise hides the ratio. It
            leaves out what our work does to caches. None where it was not measured.
        own_low: Lower end of its 95 % confidence interval.
        own_high: Upper end of it.
        goal: What the ratio is to be below; None where nobody has promised anything.
    """

    profile: str
    model: str
    ratio: float
    low: float
    high: float
    machine: str
    commit: str
    date: str
    own: float | None = None
    own_low: float | None = None
    own_high: float | None = None
    goal: float | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Self:
        """Read one line of the results.

        Raises:
            ConfigurationError: It names no profile, or its numbers are none or contradict each other.
        """
        missing = [name for name in COLUMNS if not row.get(name)]
        if missing:
            raise ConfigurationError(
                f"A line of the results lacks {', '.join(missing)}; it needs {', '.join(COLUMNS)}."
            )
        if row["profile"] not in PROFILES:
            raise ConfigurationError(f"A line of the results names {row['profile']!r}, which is no profile.")
        try:
            low, ratio, high = (float(row[name]) for name in ("low", "ratio", "high"))
        except ValueError as error:
            raise ConfigurationError(f"A line of the results has a number that is none: {error}.") from None
        if not low <= ratio <= high:
            raise ConfigurationError(f"The ratio {ratio:g} is not within its interval, {low:g} to {high:g}.")
        profile, model, machine = row["profile"], row["model"], row["machine"]
        return cls(profile, model, ratio, low, high, machine, row["commit"], row["date"])


COLUMNS: Final = tuple(each.name for each in fields(ProfileCost) if each.default is MISSING)
"""The columns of the results, in their order."""


def measured(path: Path | None = None) -> tuple[ProfileCost, ...]:
    """Return what was measured; nothing where no results are committed.

    Args:
        path: What to read instead of the file that is installed with the package.
    """
    file = path or resources.files(__package__) / FILE
    if not file.is_file():
        return ()
    return tuple(ProfileCost(**each) for each in json.loads(file.read_text(encoding="utf-8")))
