"""State table of seeds: adds the seed's state before and after to each event, or marks the event as refused.

Calls on a `Seed` and events of foreign producers pass through the same table, so a seed has a single state. The end of
a life may be signalled by a change of stage, by the end event, or by both in either order. Backends receive exactly one
event for it, with the details of both signals.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from nissa.errors import ConfigurationError
from nissa.events import EventType, SeedSnapshot, Severity, Stage, TelemetryEvent
from nissa.hub.plain_data import to_name
from nissa.seeds.accuracies import Accuracies
from nissa.seeds.checkpoint import restore
from nissa.seeds.pending_ends import MOST_PENDING, PendingEnd, PendingEnds
from nissa.seeds.slots import MOST_SEEDS, SeedRecord, Slots
from nissa.seeds.stages import ALIVE, ENDED, FINAL, STAGE_OF, path, refusal

_MOST_COUNT: Final = 2**53
"""Largest count of parameters or epochs that an event may contain."""

_REMEMBERED: Final = frozenset({"alpha", "improvement", "epochs_total", "parameters", "blueprint_id"})
"""Keys of data that a record keeps."""


class SeedTable:
    """State table of the seeds of a run.

    Args:
        most_seeds: Maximum number of seed records; see `Slots`.
        lenient: Whether a living seed may enter any stage. Transitions outside the stage table are then counted instead
            of refused.

    Attributes:
        slots: The seed records.
        refusals: Number of refused events.
    """

    def __init__(self, most_seeds: int = MOST_SEEDS, *, lenient: bool = False) -> None:
        self._lenient = lenient
        self.slots = Slots(most_seeds)
        self.refusals = 0
        # Queue of ends whose end event may follow with a reason and an improvement.
        self._pending = PendingEnds(min(most_seeds, MOST_PENDING))
        self._accuracies: dict[str | None, Accuracies] = {}
        self._handlers: dict[str, Callable[[TelemetryEvent], Sequence[TelemetryEvent]]] = {
            EventType.SEED_GERMINATED: self._germinated,
            EventType.SEED_STAGE_CHANGED: self._stage_changed,
            EventType.SEED_FOSSILIZED: self._ended,
            EventType.SEED_CULLED: self._ended,
            EventType.SEED_GATE_EVALUATED: self._observed,
            EventType.ISOLATION_VIOLATION: self._violated,
            EventType.CHECKPOINT_LOADED: self._resumed,
            EventType.EPOCH_COMPLETED: self._epoch,
        }

    def apply(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        """Return the events to emit for an event; ends that were held back until now come first."""
        if event.refused is not None:
            self.refusals += 1
            return (event,)
        handler = self._handlers.get(event.event_type)
        if not self._pending.ends:
            return (event,) if handler is None else handler(event)
        over = self._pending.over(event)
        earlier = [end.event() for end in over]  # before the handler changes their seeds
        events = (event,) if handler is None else handler(event)
        self._drop(over)
        return (*earlier, *events)

    @property
    def pending(self) -> int:
        """Number of ends that are held back."""
        return len(self._pending)

    def release(self, at: int | None = None) -> list[TelemetryEvent]:
        """Return the ends that were held back until now.

        Args:
            at: Time in nanoseconds since the Unix epoch: returns only ends whose waiting time is over by then. None
                returns all.
        """
        due = self._pending.due(at)
        events = [end.event() for end in due]
        self._drop(due)
        return events

    def validated(self, env_id: str | None, accuracy: float | None, at: int) -> list[SeedSnapshot]:
        """Record a validation; return the environment's seeds that live, or ended since the previous validation.

        Args:
            env_id: The environment.
            accuracy: Validation accuracy as a fraction, None where it was not measured.
            at: Time of the validation, nanoseconds since the Unix epoch.
        """
        self._accuracies_of(env_id).add(accuracy, at)
        records = [record for record in self.slots.unreported() if record.env_id == env_id]
        self.slots.report(record for record in records if record.stage not in ALIVE)
        return [record.snapshot() for record in records]

    def _drop(self, ends: list[PendingEnd]) -> None:
        for end in ends:
            self._pending.pop(end.record)

    def _accuracies_of(self, env_id: str | None) -> Accuracies:
        return self._accuracies.get(env_id) or self._accuracies.setdefault(env_id, Accuracies())

    def _record(self, event: TelemetryEvent) -> SeedRecord | None:
        return self.slots.get((event.env_id, event.seed_id)) if event.seed_id else None

    def _germinated(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        known = self._record(event)
        if known is not None and known.stage in ALIVE:
            return (self._refuse(event, known, f"seed {event.seed_id!r} is alive already, in {known.stage.name}."),)
        record = self._new_record(event, Stage.GERMINATED)
        self.slots.put(record)
        return (event.changed(seed=record.snapshot()),)

    def _stage_changed(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        to = event.data["to"]
        target = Stage.named(to) or Stage.parse(to)
        record = self._record(event)
        if record is None:
            return self._adopted(event, target)
        if record.stage is target and target not in ALIVE:
            return ()  # the end of the life was sent before the change of stage
        return self._move(event, record, target)

    def _adopted(self, event: TelemetryEvent, target: Stage) -> Sequence[TelemetryEvent]:
        """Start the life of a seed that germinated before telemetry was attached."""
        assert event.seed_id is not None  # noqa: S101 - normalisation rejects seed events without one
        if target in FINAL and self.slots.has_departed((event.env_id, event.seed_id)):
            return ()  # the end of the life was sent before the change of stage
        origin = event.data.get("from")
        before = target if origin is None else Stage.parse(origin)
        if before in ENDED:
            return (event,)  # a slot in its cooldown, without a seed
        record = self._new_record(event, before)
        if origin is None and target is Stage.BLENDING:
            record.start = record.accuracies.baseline(event.time_unix_nano)
        self.slots.put(record)
        beginning = TelemetryEvent(
            EventType.SEED_GERMINATED,
            seed_id=record.seed_id,
            slot_id=record.slot_id,
            env_id=record.env_id,
            epoch=event.epoch,
            data={"adopted": True},
            time_unix_nano=event.time_unix_nano,
            event_id=f"{event.event_id}-adopted",
            seed=record.snapshot(),
        )
        return (beginning,) if origin is None else (beginning, *self._move(event, record, target))

    def _move(self, event: TelemetryEvent, record: SeedRecord, target: Stage) -> Sequence[TelemetryEvent]:
        """Enter the stages up to a target. A final stage is held back, since the end event may follow."""
        steps = self._path(record.stage, target)
        if not steps:
            return (self._refuse(event, record, refusal(record.stage, target)),)
        before = record.snapshot()
        _remember(record, event.data)
        changes = []
        for stage in steps:
            self._enter(record, stage, event.time_unix_nano)
            if stage in FINAL:
                self._pending.hold(PendingEnd(record, before, event))
                break
            after = record.snapshot()
            changes.append(_changed(event, before, after, last=stage is target))
            before = after
        return changes

    def _ended(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        target = STAGE_OF[event.event_type]
        record = self._record(event)
        if record is None:
            return (self._ended_unknown(event),)
        if record.stage is target and (pending := self._pending.pop(record)) is not None:
            _remember(record, event.data)
            return (pending.event(event),)
        return self._end(event, record, target)

    def _ended_unknown(self, event: TelemetryEvent) -> TelemetryEvent:
        """Pass on the end of an unknown seed the first time; refuse repetitions."""
        assert event.seed_id is not None  # noqa: S101 - normalisation rejects seed events without one
        key = (event.env_id, event.seed_id)
        if self.slots.has_departed(key):
            return self._refuse(event, None, f"the end of seed {event.seed_id!r} was reported already.")
        self.slots.depart(key)
        return event

    def _end(self, event: TelemetryEvent, record: SeedRecord, target: Stage) -> Sequence[TelemetryEvent]:
        """End a life for which no change of stage was sent."""
        steps = self._path(record.stage, target)
        if not steps:
            return (self._refuse(event, record, refusal(record.stage, target)),)
        before = record.snapshot()
        _remember(record, event.data)
        events = []
        for stage in steps[:-1]:
            self._enter(record, stage, event.time_unix_nano)
            after = record.snapshot()
            change = event.changed(event_type=EventType.SEED_STAGE_CHANGED, data={}, message="")
            events.append(_changed(change, before, after, last=False))
            before = after
        self._enter(record, target, event.time_unix_nano)
        return (*events, event.changed(before=before, seed=record.snapshot()))

    def _path(self, stage: Stage, target: Stage) -> tuple[Stage, ...]:
        """Return the stages to enter, in order; empty where the transition is not allowed."""
        return path(stage, target) or ((target,) if self._lenient and stage in ALIVE else ())

    def _enter(self, record: SeedRecord, stage: Stage, at: int) -> None:
        was_alive = record.stage in ALIVE
        record.enter(stage, at)
        if not (was_alive and stage in ALIVE):
            self.slots.moved(record)

    def _observed(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        record = self._record(event)
        if record is None:
            return (event,)
        before = record.snapshot()
        _remember(record, event.data)
        return (event.changed(before=before, seed=record.snapshot()),)

    def _violated(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        record = self._record(event)
        if record is None:
            return (event,)
        before = record.snapshot()
        record.isolation_violations += 1
        return (event.changed(before=before, seed=record.snapshot()),)

    def _resumed(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        state = event.data.get("seed_state")
        if not event.seed_id or not isinstance(state, dict):
            return (event,)
        known = self._record(event)
        if known is not None and known.stage in ALIVE:
            return (self._refuse(event, known, f"seed {event.seed_id!r} is alive already, in {known.stage.name}."),)
        try:
            record = restore(state)
        except ConfigurationError as error:
            return (self._refuse(event, known, str(error)),)
        if record.key != (event.env_id, event.seed_id):
            of = f"seed {record.seed_id!r} of env {record.env_id!r}"
            return (self._refuse(event, known, f"the state is that of {of}."),)
        record.join(self._accuracies_of(event.env_id))
        self.slots.put(record)
        data = {key: value for key, value in event.data.items() if key != "seed_state"}
        return (event.changed(data=data | {"attempt": record.attempt}, seed=record.snapshot()),)

    def _epoch(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        for record in self.slots.alive():
            if record.env_id == event.env_id:
                record.epochs_total += 1
                record.epochs_in_stage += 1
        return (event,)

    def _refuse(self, event: TelemetryEvent, record: SeedRecord | None, reason: str) -> TelemetryEvent:
        self.refusals += 1
        seed = None if record is None else record.snapshot()
        return event.changed(refused=reason, severity=Severity.WARNING, seed=seed)

    def _new_record(self, event: TelemetryEvent, stage: Stage) -> SeedRecord:
        assert event.seed_id is not None  # noqa: S101 - normalisation rejects seed events without one
        record = SeedRecord(
            seed_id=event.seed_id,
            env_id=event.env_id,
            slot_id=event.slot_id,
            blueprint_id=None,
            parameters=None,
            germinated_at=event.time_unix_nano,
            stage_since=event.time_unix_nano,
            stage=stage,
            accuracies=self._accuracies_of(event.env_id),
        )
        _remember(record, event.data)
        return record


def _changed(event: TelemetryEvent, before: SeedSnapshot, after: SeedSnapshot, *, last: bool) -> TelemetryEvent:
    """Return the change of stage between two snapshots; an intermediate one has its own event id."""
    origin, target, data = before.stage.label, after.stage.label, event.data
    if data.get("from") != origin or data.get("to") != target:  # as a foreign producer may write them
        data = {**data, "from": origin, "to": target}
    event_id = event.event_id if last else f"{event.event_id}-{target}"
    return event.changed(data=data, event_id=event_id, before=before, seed=after)


def _remember(record: SeedRecord, data: dict[str, Any]) -> None:
    """Copy the seed fields that an event contains to the record; the other fields keep their values."""
    if _REMEMBERED.isdisjoint(data):
        return
    if (alpha := _number(data.get("alpha"))) is not None:
        record.alpha = alpha
    if (improvement := _number(data.get("improvement"))) is not None:
        record.improvement = improvement
    # Telemetry may have been attached late, so the producer's own count may be the larger, correct one.
    if (epochs := _count(data.get("epochs_total"))) is not None and epochs > record.epochs_total:
        record.epochs_total = epochs
    if record.parameters is None:
        record.parameters = _count(data.get("parameters"))
    if record.blueprint_id is None and (blueprint := data.get("blueprint_id")) is not None:
        record.blueprint_id = to_name(blueprint)


def _number(value: object) -> float | None:
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _count(value: object) -> int | None:
    """Return a count; None for anything else, and for one that further counting could take beyond OTLP's integers."""
    if value is None:
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNT else None
