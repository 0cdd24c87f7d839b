"""A state table, told of events as a hub tells it."""

from typing import Any

import pytest

from nissa import EventType, Stage, TelemetryEvent
from nissa.events import SeedSnapshot
from nissa.seeds.lifecycle import SeedTable

Transition = tuple[str, str]


class Told:
    """A table and all that backends would have seen."""

    def __init__(self) -> None:
        self.table = SeedTable()
        self.seen: list[TelemetryEvent] = []
        self.now = 1_000

    def tell(self, kind: str, seed_id: str | None = "s", **given: Any) -> list[TelemetryEvent]:
        """Tell the table of an event, a nanosecond after the last; keywords beside its fields are data."""
        self.now += 1
        fields = {name: given.pop(name) for name in ("env_id", "slot_id", "epoch", "message") if name in given}
        event = TelemetryEvent(kind, seed_id=seed_id, data=given, time_unix_nano=self.now, **fields)
        told = list(self.table.apply(event))
        self.seen.extend(told)
        return told

    def germinate(self, seed_id: str = "s", **given: Any) -> SeedSnapshot:
        """Begin a life and return it."""
        return self.snapshot(self.tell(EventType.SEED_GERMINATED, seed_id, **given))

    def change(self, *stages: Stage, seed_id: str = "s", **given: Any) -> list[TelemetryEvent]:
        """Tell of one stage change after another; return what the last one became."""
        told: list[TelemetryEvent] = []
        for stage in stages:
            told = self.tell(EventType.SEED_STAGE_CHANGED, seed_id, to=stage.label, **given)
        return told

    def epochs(self, count: int, env_id: str | None = None) -> None:
        """Complete epochs."""
        for _ in range(count):
            self.tell(EventType.EPOCH_COMPLETED, None, env_id=env_id)

    def state(self, seed_id: str = "s", env_id: str | None = None) -> SeedSnapshot:
        """Return a seed as the table knows it."""
        record = self.table.slots.get((env_id, seed_id))
        assert record is not None
        return record.snapshot()

    @staticmethod
    def snapshot(told: list[TelemetryEvent]) -> SeedSnapshot:
        """Return the seed after the last of some events."""
        seed = told[-1].seed
        assert seed is not None
        return seed

    def transitions(self) -> list[Transition]:
        """Return every transition that backends saw."""
        transitions = [event.transition for event in self.seen if event.transition is not None]
        return [(before.label, after.label) for before, after in transitions]

    def kinds(self) -> list[str]:
        """Return the types of all events that backends saw."""
        return [str(event.event_type) for event in self.seen]


@pytest.fixture
def told() -> Told:
    return Told()
