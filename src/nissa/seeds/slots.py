"""What is known about each seed, keyed so that environments and successive seeds of a slot never mix."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from nissa.events import SeedSnapshot, SpanIds, Stage
from nissa.seeds.stages import ALIVE

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
    """The state of one seed's life; only the table changes it."""

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
    end_told: bool = False
    history: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin the history, and be one's own first root unless resumed."""
        self.first_root = self.first_root or self.ids.span_id
        if not self.history:
            self.history.append((self.stage.label, self.stage_since))

    @property
    def key(self) -> SeedKey:
        """Where the table keeps the record."""
        return (self.env_id, self.seed_id)

    def enter(self, stage: Stage, at: int) -> None:
        """Move to a stage."""
        self.previous, self.stage, self.stage_since, self.epochs_in_stage = self.stage, stage, at, 0
        self.history.append((stage.label, at))
        del self.history[:-MOST_HISTORY]

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

    def __iter__(self) -> Iterator[SeedRecord]:
        """Iterate over the records."""
        return iter(list(self._records.values()))

    def get(self, key: SeedKey) -> SeedRecord | None:
        """Return a seed's present life, or None."""
        return self._records.get(key)

    def put(self, record: SeedRecord) -> None:
        """Keep a life, in place of an earlier one of the same seed."""
        self._records.pop(record.key, None)
        self._records[record.key] = record
        if len(self._records) > self._most:
            oldest = next((each.key for each in self if each.stage not in ALIVE), None)
            if oldest is not None:
                del self._records[oldest]

    def of(self, env_id: str | None) -> list[SeedRecord]:
        """Return an environment's seeds."""
        return [record for record in self if record.env_id == env_id]

    def alive(self) -> list[SeedRecord]:
        """Return the seeds whose fate is open."""
        return [record for record in self if record.stage in ALIVE]
