"""The record of each seed, keyed so that environments and successive seeds of a slot never mix."""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nissa.events import SeedSnapshot, SpanIds, Stage
from nissa.seeds.accuracies import Accuracies, Baseline
from nissa.seeds.stages import ALIVE, BLENDED

if TYPE_CHECKING:
    import weakref

    import torch

SeedKey = tuple[str | None, str]
"""Environment and seed id."""

MOST_HISTORY = 100


def new_trace_id() -> int:
    """Return a random 16-byte trace id; the operating system's generator leaves Python's ``random`` alone."""
    return secrets.randbits(128) or 1


def new_span_id() -> int:
    """Return a random 8-byte span id."""
    return secrets.randbits(64) or 1


@dataclass(slots=True, kw_only=True)
class SeedRecord:
    """The state of one seed's life; only the table changes it.

    Args:
        accuracies: Validation accuracies of the seed's environment.
        start: What they are compared with, None before the seed blends.
        module: The seed itself, which the record does not keep alive.
    """

    seed_id: str
    env_id: str | None
    slot_id: str | None
    blueprint_id: str | None
    parameters: int | None
    germinated_at: int
    stage_since: int
    ids: SpanIds = field(default_factory=lambda: SpanIds(new_trace_id(), new_span_id()))
    first_root: int = 0
    attempt: int = 0
    stage: Stage = Stage.GERMINATED
    previous: Stage | None = None
    epochs_total: int = 0
    epochs_in_stage: int = 0
    alpha: float | None = None
    improvement: float | None = None
    isolation_violations: int = 0
    history: list[tuple[str, int]] = field(default_factory=list)
    accuracies: Accuracies = field(default_factory=Accuracies)
    start: Baseline | None = None
    module: "weakref.ref[torch.nn.Module] | None" = None

    def __post_init__(self) -> None:
        """Begin the history, and be one's own first root unless resumed."""
        self.first_root = self.first_root or self.ids.span_id
        if not self.history:
            self.history.append((self.stage.label, self.stage_since))
        if self.start is None and self.stage in BLENDED:
            self.start = Baseline()  # it began to blend before this process knew it

    @property
    def key(self) -> SeedKey:
        """Where the table keeps the record."""
        return (self.env_id, self.seed_id)

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the environment's newest validation."""
        return self.accuracies.newest

    @property
    def accuracy_before(self) -> float | None:
        """Accuracy of the newest validation before the seed began to blend."""
        return None if self.start is None else self.start.accuracy

    @property
    def accuracy_delta(self) -> float | None:
        """Change of validation accuracy since the seed began to blend."""
        return None if self.start is None else self.accuracies.delta(self.start)

    def enter(self, stage: Stage, at: int) -> None:
        """Move to a stage."""
        self.previous, self.stage, self.stage_since, self.epochs_in_stage = self.stage, stage, at, 0
        self.history.append((stage.label, at))
        del self.history[:-MOST_HISTORY]
        if stage is Stage.BLENDING:
            self.begin_blending()

    def begin_blending(self) -> None:
        """Compare validation accuracies with the one before the present stage from now on, unless that began earlier."""
        if self.start is None:
            self.start = self.accuracies.baseline(self.stage_since)

    def join(self, accuracies: Accuracies) -> None:
        """Compare with the validations of an environment; only those from now on say what blending brought."""
        self.accuracies = accuracies
        if self.start is not None:
            self.start = Baseline(self.start.accuracy, accuracies.number)

    def snapshot(self) -> SeedSnapshot:
        """Return the record as a frozen value."""
        names = SeedSnapshot.__dataclass_fields__
        return SeedSnapshot(**{name: getattr(self, name) for name in names})


MOST_SEEDS: Final = 10_000


class Slots:
    """The seeds known, in the order in which they germinated.

    Args:
        most: How many are kept; beyond it those whose fate was decided first are forgotten, the living never.
    """

    def __init__(self, most: int = MOST_SEEDS) -> None:
        self._most = most
        self._records: dict[SeedKey, SeedRecord] = {}
        self._alive: dict[SeedKey, SeedRecord] = {}
        self._ended: dict[SeedKey, None] = {}  # in the order in which their fate was decided
        self._departed: dict[SeedKey, None] = {}
        self._unreported: dict[SeedKey, SeedRecord] = {}  # the living, and those that ended since the last validation

    def __iter__(self) -> Iterator[SeedRecord]:
        """Iterate over the records."""
        return iter(list(self._records.values()))

    def get(self, key: SeedKey) -> SeedRecord | None:
        """Return a seed's present life, or None."""
        return self._records.get(key)

    def put(self, record: SeedRecord) -> None:
        """Keep a life, in place of an earlier one of the same seed."""
        for known in (self._records, self._alive, self._ended, self._departed, self._unreported):
            known.pop(record.key, None)
        self._records[record.key] = self._unreported[record.key] = record
        self.moved(record)
        while len(self._records) > self._most and self._ended:
            oldest = next(iter(self._ended))
            del self._records[oldest], self._ended[oldest]
            self._unreported.pop(oldest, None)
            self.depart(oldest)

    def moved(self, record: SeedRecord) -> None:
        """Take note that a record has changed its stage."""
        if record.stage in ALIVE:
            self._alive[record.key] = record
        else:
            self._alive.pop(record.key, None)
            self._ended.setdefault(record.key)

    def depart(self, key: SeedKey) -> None:
        """Remember the end of a life of which no record is kept, so that it is not reported again."""
        self._departed[key] = None
        if len(self._departed) > self._most:
            del self._departed[next(iter(self._departed))]

    def has_departed(self, key: SeedKey) -> bool:
        """Whether a seed's life has ended and no record of it is kept."""
        return key in self._departed

    def of(self, env_id: str | None) -> list[SeedRecord]:
        """Return an environment's seeds."""
        return [record for record in self if record.env_id == env_id]

    def alive(self) -> list[SeedRecord]:
        """Return the seeds whose fate is open."""
        return list(self._alive.values())

    def unreported(self) -> list[SeedRecord]:
        """Return the seeds that live, or whose end no validation has reported."""
        return list(self._unreported.values())

    def report(self, ended: Iterable[SeedRecord]) -> None:
        """Take note that a validation has reported the end of some lives."""
        for record in ended:
            if self._unreported.get(record.key) is record:
                self._unreported.pop(record.key, None)

    def growing(self, env_id: str | None) -> list[tuple[str, frozenset[int]]]:
        """Return slot and ids of the parameters of each living seed of an environment that has a slot and a module."""
        found = []
        for record in self.alive():
            module = None if record.module is None else record.module()
            if record.env_id == env_id and module is not None and record.slot_id is not None:
                found.append((record.slot_id, frozenset(map(id, module.parameters()))))
        return found
