"""Ends of lives that only a change of stage has signalled so far.

Producers of the original's kind send SEED_STAGE_CHANGED to the final stage first and the end with its reason and
improvement right after. The change alone is therefore held back until the end arrives or cannot arrive any more.
"""

from dataclasses import dataclass, replace
from typing import Final

from nissa.events import EventType, SeedSnapshot, Stage, TelemetryEvent
from nissa.seeds.slots import SeedKey, SeedRecord
from nissa.seeds.stages import END_OF, STAGE_OF

PATIENCE: Final = 1_000_000_000
"""Nanoseconds that an end is held back at most, by the time of the next event of any kind."""

MOST_PENDING: Final = 1_000
"""Ends that are held back at most, where no fewer seeds are remembered; beyond it the oldest is released."""

_BOUNDARIES: Final = frozenset({EventType.EPOCH_STARTED, EventType.EPOCH_COMPLETED})
_LIVES: Final = frozenset(
    {EventType.SEED_GERMINATED, EventType.SEED_STAGE_CHANGED, EventType.CHECKPOINT_LOADED, *END_OF.values()}
)
"""Types of event that begin, change or end the life of a seed."""

_OF_SEEDS: Final = _LIVES | {EventType.SEED_GATE_EVALUATED, EventType.ISOLATION_VIOLATION}
"""Types of event that carry the state of a seed, which must not show its end before the end is reported."""


@dataclass(frozen=True, slots=True)
class PendingEnd:
    """An end that is held back.

    Args:
        record: The seed, which has entered its final stage already.
        before: The seed before it did.
        change: The change of stage that signalled the end.
    """

    record: SeedRecord
    before: SeedSnapshot
    change: TelemetryEvent

    def event(self, told: TelemetryEvent | None = None) -> TelemetryEvent:
        """Return the one event of this end, with the time of the change and the details of both signals.

        Args:
            told: The end as the producer sent it, None where it sent none.
        """
        change = self.change
        data = {key: value for key, value in change.data.items() if key not in {"from", "to"}}
        kind, after = END_OF[self.record.stage], self.record.snapshot()
        if told is None:
            return replace(change, event_type=kind, data=data, before=self.before, seed=after)
        return replace(
            told,
            data=data | told.data,
            slot_id=change.slot_id if told.slot_id is None else told.slot_id,
            epoch=change.epoch if told.epoch is None else told.epoch,
            message=told.message or change.message,
            time_unix_nano=change.time_unix_nano,
            before=self.before,
            seed=after,
        )

    def is_over(self, event: TelemetryEvent) -> bool:
        """Whether no end is to be expected any more once an event has arrived."""
        kind, record = event.event_type, self.record
        if self.is_completed_by(event):
            return False
        if kind == EventType.TRAINING_ENDED or self.is_due(event.time_unix_nano):
            return True
        if event.env_id != record.env_id:
            return False
        if kind in _OF_SEEDS and event.seed_id == record.seed_id:
            return not self._repeated(event)
        reused = event.slot_id is not None and event.slot_id == record.slot_id
        return kind in _BOUNDARIES or (kind in _LIVES and reused)

    def is_completed_by(self, event: TelemetryEvent) -> bool:
        """Whether an event is the end that was expected."""
        same = (event.env_id, event.seed_id) == self.record.key
        return same and STAGE_OF.get(event.event_type) is self.record.stage

    def is_due(self, at: int) -> bool:
        """Whether the end has been held back for long enough at a time."""
        return at - self.change.time_unix_nano >= PATIENCE

    def _repeated(self, event: TelemetryEvent) -> bool:
        return event.event_type == EventType.SEED_STAGE_CHANGED and Stage.parse(event.data["to"]) is self.record.stage


class PendingEnds:
    """The ends that are held back, oldest first.

    Args:
        most: How many; beyond it the oldest is released with the next event.
    """

    def __init__(self, most: int = MOST_PENDING) -> None:
        self._most = most
        self._pending: dict[SeedKey, PendingEnd] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._pending)

    def hold(self, end: PendingEnd) -> None:
        """Hold an end back."""
        self._pending[end.record.key] = end

    def over(self, event: TelemetryEvent) -> list[PendingEnd]:
        """Return the ends that are to be reported ahead of an event."""
        if not self._pending:
            return []
        surplus = len(self._pending) + 1 - self._most
        return [
            end
            for place, end in enumerate(self._pending.values())
            if end.is_over(event) or (place < surplus and not end.is_completed_by(event))
        ]

    def due(self, at: int | None) -> list[PendingEnd]:
        """Return the ends that have been held back for long enough at a time; all where it is None."""
        return [end for end in self._pending.values() if at is None or end.is_due(at)]

    def pop(self, record: SeedRecord) -> PendingEnd | None:
        """Stop holding back the end of a life; return it, or None where it was not held back."""
        end = self._pending.get(record.key)
        return self._pending.pop(record.key) if end is not None and end.record is record else None
