"""Loses some of a run's measurements, as a process under load does, and has rules judge what is left."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Final, TypeVar

from nissa.config import TelemetryConfig
from nissa.diagnostics.rulebook import RuleBook
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured

Kept = list[bool]
_Lossy = TypeVar("_Lossy", StepMeasured, GradientsMeasured)


def ways(number: int, random: Random) -> dict[str, Kept]:
    """Return by name which of so many entries are kept, in several ways of losing some."""
    first = {f"without the first {lost}": [index >= lost for index in range(number)] for lost in (1, 4, 15, 60)}
    thinned = {f"{share:.0%} lost": [random.random() >= share for _ in range(number)] for share in (0.02, 0.1, 0.5)}
    bursts = {f"bursts of {length}": _bursts(number, length, random) for length in (5, 25, 80)}
    return {**first, **thinned, **bursts}


def _bursts(number: int, length: int, random: Random) -> Kept:
    kept = [True] * number
    for _ in range(3):
        start = random.randrange(number)
        kept[start : start + length] = [False] * len(kept[start : start + length])
    return kept


def lose(entries: Sequence[_Lossy], kept: Kept) -> list[_Lossy]:
    """Return the entries that are kept; each states how many were lost before it."""
    left, missed = [], 0
    for entry, keep in zip(entries, kept, strict=True):
        missed += not keep
        if keep:
            left.append(replace(entry, missed=missed))
            missed = 0
    return left


CONFIG: Final = TelemetryConfig.from_profile("diagnostic", {}).diagnostics


def raised(readings: Iterable[Measurement]) -> set[str]:
    """Return the flags that rules raise about steps and gradients."""
    book, every = RuleBook(CONFIG), list(readings)
    steps = [each for each in every if isinstance(each, StepMeasured)]
    samples = [each for each in every if isinstance(each, GradientsMeasured)]
    return {each.name for each in book.judge(steps, samples) if each.raised}


def falsely_raised(readings: Iterable[Measurement], random: Random) -> dict[str, set[str]]:
    """Return by the way of losing measurements the flags that are raised only because some were lost."""
    every = list(readings)
    steps = [each for each in every if isinstance(each, StepMeasured)]
    samples = [each for each in every if isinstance(each, GradientsMeasured)]
    complete = raised(every)
    kept = zip(ways(len(steps), random).items(), ways(len(samples), random).values(), strict=True)
    found = {way: raised([*lose(steps, a), *lose(samples, b)]) - complete for (way, a), b in kept}
    return {way: flags for way, flags in found.items() if flags}
