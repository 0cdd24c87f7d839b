"""Measured overhead of the profiles, from the committed benchmark results.

``benchmarks/results/overhead.csv`` has one row per profile and model, with the columns `COLUMNS`. ``make generate``
combines it with the time in Nissa's own code (``within.csv``) and the goals, and writes ``overhead.json`` beside this
file. In the same way ``short.csv`` becomes ``short_steps.json``. These files are installed with the package; without results
they do not exist.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self

from nissa.config.files import PROFILES
from nissa.errors import ConfigurationError

FILE: Final = "overhead.json"
SHORT_FILE: Final = "short_steps.json"


@dataclass(frozen=True, slots=True)
class ProfileCost:
    """Overhead of a profile in one benchmark.

    Args:
        profile: Name of the profile.
        model: Name of the benchmark model.
        ratio: Increase of the step time over that without Nissa, as a fraction of the latter: 0.012 is 1.2 %.
        low: Lower end of the 95 % confidence interval of ``ratio``; noise may make it negative.
        high: Upper end of that interval.
        machine: Hardware and versions: processor or accelerator, cores, software.
        commit: Revision that was measured.
        date: Date of the measurement, as in 2026-11-24.
        own: Time in Nissa's own code, measured by a clock around it, as a fraction of the remaining time. Used if noise
            hides ``ratio``. Excludes indirect effects, such as cache misses. None if it was not measured.
        own_low: Lower end of the 95 % confidence interval of ``own``.
        own_high: Upper end of that interval.
        goal: Upper limit promised for ``ratio``; None without a promise.
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
        """Parse one row of the results.

        Raises:
            ConfigurationError: A column is missing, the profile is unknown, or numbers are invalid or inconsistent.
        """
        missing = [name for name in COLUMNS if not row.get(name)]
        if missing:
            raise ConfigurationError(
                f"A line of the results lacks {', '.join(missing)}; it needs {', '.join(COLUMNS)}."
            )
        if row["profile"] not in PROFILES:
            raise ConfigurationError(f"A line of the results names {row['profile']!r}, which is not a profile.")
        try:
            low, ratio, high = (float(row[name]) for name in ("low", "ratio", "high"))
        except ValueError as error:
            raise ConfigurationError(f"A line of the results has an invalid number: {error}.") from None
        if not low <= ratio <= high:
            raise ConfigurationError(f"The ratio {ratio:g} is not within its interval, {low:g} to {high:g}.")
        profile, model, machine = row["profile"], row["model"], row["machine"]
        return cls(profile, model, ratio, low, high, machine, row["commit"], row["date"])


COLUMNS: Final = tuple(each.name for each in fields(ProfileCost) if each.default is MISSING)
"""Columns of the results, in order."""


@dataclass(frozen=True, slots=True)
class ShortStepCost:
    """Processor time that a profile adds to a short step, of all threads together.

    Args:
        profile: Name of the profile.
        model: Name of the benchmark model.
        bare: Microseconds of a step without Nissa.
        added: Microseconds that Nissa adds.
        low: Lower end of the 95 % confidence interval of ``added``.
        high: Upper end of that interval.
        machine: Hardware and versions, as in `ProfileCost`.
        commit: Revision that was measured.
        date: Date of the measurement.
        goal: Upper limit promised for ``added``, on a machine where a step of ``mlp`` takes 125; None without a promise.
    """

    profile: str
    model: str
    bare: float
    added: float
    low: float
    high: float
    machine: str
    commit: str
    date: str
    goal: float | None = None


def measured(path: Path | None = None) -> tuple[ProfileCost, ...]:
    """Return the measured costs; empty if no results are committed.

    Args:
        path: File to read instead of the one installed with the package.
    """
    return tuple(ProfileCost(**each) for each in _entries(path, FILE))


def measured_short(path: Path | None = None) -> tuple[ShortStepCost, ...]:
    """Return the measured costs of short steps; empty if no results are committed.

    Args:
        path: File to read instead of the one installed with the package.
    """
    return tuple(ShortStepCost(**each) for each in _entries(path, SHORT_FILE))


def _entries(path: Path | None, name: str) -> list[dict[str, Any]]:
    file = path or resources.files(__package__) / name
    entries: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return entries
