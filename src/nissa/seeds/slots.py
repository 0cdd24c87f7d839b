"""Seed records, keyed by environment and seed id, so that environments and successive seeds of a slot never mix."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nissa.events import SeedSnapshot, SpanIds, Stage
from nissa.random_ids import new_span_id, new_trace_id
from nissa.seeds.accuracies import Accuracies, Baseline
from nissa.seeds.stages import ALIVE, BLENDED

if TYPE_CHECKING:
    import weakref

    import torch

SeedKey = tuple[str | None, str]
"""Environment and seed id."""

MOST_HISTORY = 100


@dataclass(slots=True, kw_only=True)
class SeedRecord:
    """State of one seed's life; modified only by the state table.

    Args:
        accuracies: Validation accuracies of the seed's environment.
        start: Baseline of the accuracies, None before the seed blends.
        module: Weak reference to the seed's module, so that the record does not keep it alive.

    Attributes:
        key: Key of the record in the state table.
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
    key: SeedKey = field(init=False)
    _latest: "tuple[tuple[Any, ...], SeedSnapshot] | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Start the history. The root span is the first root unless the seed was resumed."""
        self.key = self.env_id, self.seed_id
        self.first_root = self.first_root or self.ids.span_id
        if not self.history:
            self.history.append((self.stage.label, self.stage_since))
        if self.start is None and self.stage in BLENDED:
            self.start = Baseline()  # it began to blend before this process recorded it

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
        if len(self.history) > MOST_HISTORY:
            del self.history[:-MOST_HISTORY]
        if stage is Stage.BLENDING:
            self.begin_blending()

    def begin_blending(self) -> None:
        """Set the baseline to the validation before the current stage, unless a baseline is set."""
        if self.start is None:
            self.start = self.accuracies.baseline(self.stage_since)

    def join(self, accuracies: Accuracies) -> None:
        """Use the validations of an environment. Only later ones are compared with the baseline of a resumed seed."""
        self.accuracies = accuracies
        if self.start is not None:
            self.start = Baseline(self.start.accuracy, accuracies.number)

    def snapshot(self) -> SeedSnapshot:
        """Return a frozen copy of the record."""
        # Not `attrgetter` and the properties above: each event needs this twice, and it is most of its cost here.
        accuracies, start = self.accuracies, self.start
        values = (
            self.seed_id,
            self.env_id,
            self.slot_id,
            self.blueprint_id,
            self.parameters,
            self.ids,
            self.first_root,
            self.attempt,
            self.stage,
            self.previous,
            self.germinated_at,
            self.stage_since,
            self.epochs_total,
            self.epochs_in_stage,
            self.alpha,
            self.improvement,
            self.isolation_violations,
            accuracies.newest,
            None if start is None else start.accuracy,
            None if start is None else accuracies.delta(start),
        )
        latest = self._latest
        if latest is None or latest[0] != values:  # the state before an event is mostly that after the previous one
            self._latest = latest = values, SeedSnapshot(*values)
        return latest[1]


MOST_SEEDS: Final = 10_000


class Slots:
    """Bounded map of seed records, in the order of germination.

    Args:
        most: Maximum number of records. Beyond it the records that ended first are deleted; live ones never are.
    """

    def __init__(self, most: int = MOST_SEEDS) -> None:
        self._most = most
        self._records: dict[SeedKey, SeedRecord] = {}
        self._alive: dict[SeedKey, SeedRecord] = {}  # so that an epoch does not iterate over ended records
        self._ended: dict[SeedKey, None] = {}  # in the order of their ends, to delete the oldest first
        self._departed: dict[SeedKey, None] = {}  # keys of deleted records, to refuse a repeated end
        self._unreported: dict[SeedKey, SeedRecord] = {}  # live ones, and those that ended since the last validation

    def __iter__(self) -> Iterator[SeedRecord]:
        """Iterate over the records."""
        return iter(list(self._records.values()))

    def get(self, key: SeedKey) -> SeedRecord | None:
        """Return the record of a seed's current life, or None."""
        return self._records.get(key)

    def put(self, record: SeedRecord) -> None:
        """Add a record, replacing that of an earlier life of the same seed."""
        key = record.key
        for known in (self._records, self._alive, self._ended, self._departed, self._unreported):
            known.pop(key, None)
        self._records[key] = self._unreported[key] = record
        self.moved(record)
        while len(self._records) > self._most and self._ended:
            oldest = next(iter(self._ended))
            del self._records[oldest], self._ended[oldest]
            self._unreported.pop(oldest, None)
            self.depart(oldest)

    def moved(self, record: SeedRecord) -> None:
        """Update the indexes after a record has changed its stage."""
        if record.stage in ALIVE:
            self._alive[record.key] = record
        else:
            self._alive.pop(record.key, None)
            self._ended.setdefault(record.key)

    def depart(self, key: SeedKey) -> None:
        """Store the key of an ended life without a record, so that its end is not reported again."""
        self._departed[key] = None
        if len(self._departed) > self._most:
            del self._departed[next(iter(self._departed))]

    def has_departed(self, key: SeedKey) -> bool:
        """Whether a seed's life has ended and its record is deleted."""
        return key in self._departed

    def of(self, env_id: str | None) -> list[SeedRecord]:
        """Return an environment's seeds."""
        return [record for record in self if record.env_id == env_id]

    def alive(self) -> list[SeedRecord]:
        """Return the records of live seeds."""
        return list(self._alive.values())

    def unreported(self) -> list[SeedRecord]:
        """Return the records of live seeds, and of seeds whose end no validation has reported yet."""
        return list(self._unreported.values())

    def report(self, ended: Iterable[SeedRecord]) -> None:
        """Mark the ends of records as reported by a validation."""
        for record in ended:
            if self._unreported.get(record.key) is record:
                self._unreported.pop(record.key, None)

    def growing(self, env_id: str | None) -> list[tuple[str, frozenset[int]]]:
        """Return slot and parameter ids of each live seed of an environment that has a slot and a module."""
        found = []
        for record in self.alive():
            module = None if record.module is None else record.module()
            if record.env_id == env_id and module is not None and record.slot_id is not None:
                found.append((record.slot_id, frozenset(map(id, module.parameters()))))
        return found
