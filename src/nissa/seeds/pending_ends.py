"""Seed ends that so far only a change of stage has signalled.

Some producers send SEED_STAGE_CHANGED to the final stage first, and the end event with its reason and improvement right
after. The change alone is therefore held back until the end event arrives or can no longer arrive.
"""

from dataclasses import dataclass
from typing import Final

from nissa.events import EventType, SeedSnapshot, Stage, TelemetryEvent
from nissa.seeds.slots import SeedKey, SeedRecord
from nissa.seeds.stages import END_OF, STAGE_OF

PATIENCE: Final = 1_000_000_000
"""Maximum time for which an end is held back, in nanoseconds, checked at the next event of any kind."""

MOST_PENDING: Final = 1_000
"""Maximum number of held-back ends, or of seed records where that is less; beyond it the oldest is released."""

_BOUNDARIES: Final = frozenset({EventType.EPOCH_STARTED, EventType.EPOCH_COMPLETED})
_LIVES: Final = frozenset(
    {EventType.SEED_GERMINATED, EventType.SEED_STAGE_CHANGED, EventType.CHECKPOINT_LOADED, *END_OF.values()}
)
"""Event types that begin, change or end the life of a seed."""

_OF_SEEDS: Final = _LIVES | {EventType.SEED_GATE_EVALUATED, EventType.ISOLATION_VIOLATION}
"""Event types with the state of a seed, which must not contain the end before the end is reported."""


@dataclass(frozen=True, slots=True)
class PendingEnd:
    """A held-back end.

    Args:
        record: Record of the seed, already in its final stage.
        before: Snapshot of the seed before its final stage.
        change: The change of stage that signalled the end.
    """

    record: SeedRecord
    before: SeedSnapshot
    change: TelemetryEvent

    def event(self, end_event: TelemetryEvent | None = None) -> TelemetryEvent:
        """Return the event of this end, with the time of the change and the details of both signals.

        Args:
            end_event: End event of the producer, None without one.
        """
        change = self.change
        data = {key: value for key, value in change.data.items() if key not in {"from", "to"}}
        kind, after = END_OF[self.record.stage], self.record.snapshot()
        if end_event is None:
            return change.changed(event_type=kind, data=data, before=self.before, seed=after)
        return end_event.changed(
            data=data | end_event.data,
            slot_id=change.slot_id if end_event.slot_id is None else end_event.slot_id,
            epoch=change.epoch if end_event.epoch is None else end_event.epoch,
            message=end_event.message or change.message,
            time_unix_nano=change.time_unix_nano,
            before=self.before,
            seed=after,
        )

    def is_over(self, event: TelemetryEvent) -> bool:
        """Whether an event rules out that the end event still arrives."""
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
        """Whether an event is the expected end event."""
        same = (event.env_id, event.seed_id) == self.record.key
        return same and STAGE_OF.get(event.event_type) is self.record.stage

    def is_due(self, at: int) -> bool:
        """Whether the waiting time of the end is over at a time."""
        return at - self.change.time_unix_nano >= PATIENCE

    def _repeated(self, event: TelemetryEvent) -> bool:
        return event.event_type == EventType.SEED_STAGE_CHANGED and Stage.parse(event.data["to"]) is self.record.stage


class PendingEnds:
    """Queue of held-back ends, oldest first. It is bounded, since a producer may never send the end events.

    Args:
        most: Maximum number; beyond it the oldest is released with the next event.

    Attributes:
        ends: The held-back ends by seed.
    """

    def __init__(self, most: int = MOST_PENDING) -> None:
        self._most = most
        self.ends: dict[SeedKey, PendingEnd] = {}

    def __len__(self) -> int:
        """Return the number of held-back ends."""
        return len(self.ends)

    def hold(self, end: PendingEnd) -> None:
        """Hold an end back."""
        self.ends[end.record.key] = end

    def over(self, event: TelemetryEvent) -> list[PendingEnd]:
        """Return the ends to report before an event."""
        if not self.ends:
            return []
        surplus = len(self.ends) + 1 - self._most
        return [
            end
            for place, end in enumerate(self.ends.values())
            if end.is_over(event) or (place < surplus and not end.is_completed_by(event))
        ]

    def due(self, at: int | None) -> list[PendingEnd]:
        """Return the ends whose waiting time is over at a time; None returns all."""
        return [end for end in self.ends.values() if at is None or end.is_due(at)]

    def pop(self, record: SeedRecord) -> PendingEnd | None:
        """Remove and return the held-back end of a record; None without one."""
        end = self.ends.get(record.key)
        return self.ends.pop(record.key) if end is not None and end.record is record else None
