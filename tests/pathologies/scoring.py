"""What was found, missed and falsely raised, in two halves: thresholds were set on one and are scored on the other.

The tuning half is random seeds 0 and 1 of each kind, and 0 of each healthy recipe; the scoring half is random seeds 5, 6 and 7,
and 1 of each recipe. While thresholds are chosen, only the tuning half is looked at. Random seeds 2, 3 and 4 were scored before,
with half of the recipes; what was learnt from them went into the rules, so they count no more.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Final

from tests.pathologies.healthy import Recipe
from tests.pathologies.kinds import Kind
from tests.pathologies.running import Outcome, Sighting

TUNING_SEEDS: Final = (0, 1)
SCORING_SEEDS: Final = (5, 6, 7)
HEALTHY_TUNING: Final = 0
HEALTHY_SCORING: Final = 1


def random_seed(name: str, number: int) -> int:
    """Return a random seed of a kind's or recipe's own, the same on every machine."""
    return zlib.crc32(f"{name} {number}".encode())


@dataclass(frozen=True)
class Score:
    """How one run came out.

    Args:
        name: Of the kind or recipe.
        rule: That the run is for, empty for a healthy one.
        tuning: Whether it belongs to the half on which thresholds were set.
        noticed: Steps from where it went wrong until it was said, None where it was missed or nothing was wrong.
        false: The flags that should not have been raised.
    """

    name: str
    rule: str
    random_seed: int
    tuning: bool
    noticed: int | None
    false: tuple[Sighting, ...]

    @property
    def missed(self) -> bool:
        """Whether something was wrong and nobody said so."""
        return bool(self.rule) and self.noticed is None


def of_kind(kind: Kind, number: int, outcome: Outcome) -> Score:
    """Score a run that went wrong."""
    after = [each for each in outcome.sightings if each.step >= kind.begins]
    found = [each.step for each in after if each.flag in kind.found]
    false = [
        each for each in outcome.sightings if each.step < kind.begins or each.flag not in (*kind.found, *kind.along)
    ]
    noticed = min(found) - kind.begins if found else None
    return Score(kind.name, kind.rule, number, number in TUNING_SEEDS, noticed, tuple(false))


def of_recipe(recipe: Recipe, number: int, outcome: Outcome) -> Score:
    """Score a healthy run."""
    return Score(recipe.name, "", number, number == HEALTHY_TUNING, None, tuple(outcome.sightings))


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    half: str
    rule: str
    kinds: int
    runs: int
    found: int
    missed: int
    false_alarms: int
    healthy_false_alarms: int
    median_steps: float | None


def table(scores: Iterable[Score]) -> list[Row]:
    """Return a line for each half and rule, and one for each half as a whole."""
    every = list(scores)
    rows = []
    for half, tuning in (("tuning", True), ("scoring", False)):
        part = [each for each in every if each.tuning is tuning]
        rules = dict.fromkeys(each.rule for each in part if each.rule)
        rules |= dict.fromkeys(sighting.flag for each in part for sighting in each.false)
        rows += [_row(half, rule, part, rule) for rule in rules]
        rows.append(_row(half, "all", part, None))
    return rows


def _row(half: str, name: str, part: list[Score], rule: str | None) -> Row:
    """Count for one rule; a run counts once, however often a flag was falsely raised in it."""
    own = [each for each in part if each.rule and rule in (None, each.rule)]
    noticed = [each.noticed for each in own if each.noticed is not None]
    false = [each for each in part if any(rule in (None, sighting.flag) for sighting in each.false)]
    return Row(
        half=half,
        rule=name,
        kinds=len({each.name for each in own}),
        runs=len(own),
        found=len(noticed),
        missed=sum(each.missed for each in own),
        false_alarms=sum(bool(each.rule) for each in false),
        healthy_false_alarms=sum(not each.rule for each in false),
        median_steps=median(noticed) if noticed else None,
    )
