"""The state table: events in, the same events out with the seed's state after them, or refused.

Calls on a `Seed` and events of foreign producers take the same way through here, so that there is one truth about a
seed. A producer that sends only the end of a life (``SEED_CULLED``) gets the stage changes that it implies, at the
same time and ahead of it, so that backends see every transition exactly once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from nissa.errors import ConfigurationError
from nissa.events import IMPLIED, EventType, SeedSnapshot, Severity, SpanIds, Stage, TelemetryEvent
from nissa.seeds.slots import MOST_SEEDS, SeedRecord, Slots, new_span_id
from nissa.seeds.stages import ALIVE, ENDED, path, refusal

STATE_VERSION: Final = 1

_ENDS: Final = {EventType.SEED_FOSSILIZED: Stage.FOSSILIZED, EventType.SEED_CULLED: Stage.CULLED}


class SeedTable:
    """Applies events to the seeds that a run knows.

    Args:
        most_seeds: How many are remembered; see `Slots`.

    Attributes:
        slots: The seeds.
        refusals: How many events were refused.
    """

    def __init__(self, most_seeds: int = MOST_SEEDS) -> None:
        self.slots = Slots(most_seeds)
        self.refusals = 0
        self._handlers: dict[str, Callable[[TelemetryEvent], Iterator[TelemetryEvent]]] = {
            EventType.SEED_GERMINATED: self._germinated,
            EventType.SEED_STAGE_CHANGED: self._stage_changed,
            EventType.SEED_FOSSILIZED: self._ended,
            EventType.SEED_CULLED: self._ended,
            EventType.SEED_GATE_EVALUATED: self._observed,
            EventType.ISOLATION_VIOLATION: self._violated,
            EventType.CHECKPOINT_LOADED: self._resumed,
            EventType.EPOCH_COMPLETED: self._epoch,
        }

    def apply(self, event: TelemetryEvent) -> list[TelemetryEvent]:
        """Return the events that backends are to see for this one."""
        if event.refused is not None:
            self.refusals += 1
            return [event]
        handler = self._handlers.get(event.event_type)
        return [event] if handler is None else list(handler(event))

    def _record(self, event: TelemetryEvent) -> SeedRecord | None:
        return self.slots.get((event.env_id, event.seed_id)) if event.seed_id else None

    def _germinated(self, event: TelemetryEvent) -> Iterator[TelemetryEvent]:
        known = self._record(event)
        if known is not None and known.stage in ALIVE:
            yield self._refuse(event, known, f"seed {event.seed_id!r} is alive already, in {known.stage.name}.")
            return
        record = _new_record(event, Stage.GERMINATED)
        self.slots.put(record)
        yield replace(event, seed=record.snapshot())

    def _stage_changed(self, event: TelemetryEvent) -> Iterator[TelemetryEvent]:
        target = Stage.parse(event.data["to"])
        record = self._record(event)
        if record is None:
            yield from self._adopted(event, target)
        elif record.stage is target and target not in ALIVE:
            return  # both the change and the end of the life were sent, the end first
        else:
            yield from self._move(event, record, target)

    def _adopted(self, event: TelemetryEvent, target: Stage) -> Iterator[TelemetryEvent]:
        """Telemetry was attached after the seed germinated: tell its life from here on."""
        origin = event.data.get("from")
        before = target if origin is None else Stage.parse(origin)
        if before in ENDED:
            yield event  # only a slot that cools down
            return
        record = _new_record(event, before)
        self.slots.put(record)
        yield TelemetryEvent(
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
        if origin is not None:
            yield from self._move(event, record, target)

    def _move(self, event: TelemetryEvent, record: SeedRecord, target: Stage) -> Iterator[TelemetryEvent]:
        steps = path(record.stage, target)
        if not steps:
            yield self._refuse(event, record, refusal(record.stage, target))
            return
        _remember(record, event.data)
        for stage in steps:
            before = record.stage
            record.enter(stage, event.time_unix_nano)
            data = {**event.data, "from": before.label, "to": stage.label}
            event_id = event.event_id if stage is target else f"{event.event_id}-{stage.label}"
            yield replace(event, data=data, event_id=event_id, seed=record.snapshot())

    def _ended(self, event: TelemetryEvent) -> Iterator[TelemetryEvent]:
        target = _ENDS[EventType(event.event_type)]
        record = self._record(event)
        if record is None:
            yield event
            return
        implied = record.stage is not target
        if record.end_told or (implied and not path(record.stage, target)):
            yield self._refuse(event, record, refusal(record.stage, target))
            return
        _remember(record, event.data)
        record.end_told = True
        if implied:
            derived = event.event_id + IMPLIED
            change = replace(event, event_type=EventType.SEED_STAGE_CHANGED, data={}, message="", event_id=derived)
            yield from self._move(change, record, target)
        yield replace(event, seed=record.snapshot())

    def _observed(self, event: TelemetryEvent) -> Iterator[TelemetryEvent]:
        record = self._record(event)
        if record is not None:
            _remember(record, event.data)
        yield event if record is None else replace(event, seed=record.snapshot())

    def _violated(self, event: TelemetryEvent) -> Iterator[TelemetryEvent]:
        record = self._record(event)
        if record is not None:
            record.isolation_violations += 1
        yield event if record is None else replace(event, seed=record.snapshot())

    def _resumed(self, event: TelemetryEvent) -> Iterator[TelemetryEvent]:
        state = event.data.get("seed_state")
        if not event.seed_id or not isinstance(state, dict):
            yield event
            return
        known = self._record(event)
        if known is not None and known.stage in ALIVE:
            yield self._refuse(event, known, f"seed {event.seed_id!r} is alive already, in {known.stage.name}.")
            return
        try:
            record = restore(state)
        except ConfigurationError as error:
            yield self._refuse(event, known, str(error))
            return
        if record.key != (event.env_id, event.seed_id):
            yield self._refuse(event, known, f"the state is that of seed {record.seed_id!r} of env {record.env_id!r}.")
            return
        self.slots.put(record)
        data = {key: value for key, value in event.data.items() if key != "seed_state"}
        yield replace(event, data=data | {"attempt": record.attempt}, seed=record.snapshot())

    def _epoch(self, event: TelemetryEvent) -> Iterator[TelemetryEvent]:
        for record in self.slots.of(event.env_id):
            if record.stage in ALIVE:
                record.epochs_total += 1
                record.epochs_in_stage += 1
        yield event

    def _refuse(self, event: TelemetryEvent, record: SeedRecord | None, reason: str) -> TelemetryEvent:
        self.refusals += 1
        seed = None if record is None else record.snapshot()
        return replace(event, refused=reason, severity=Severity.WARNING, seed=seed)


def _new_record(event: TelemetryEvent, stage: Stage) -> SeedRecord:
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
    )
    _remember(record, event.data)
    return record


def _remember(record: SeedRecord, data: dict[str, Any]) -> None:
    """Keep what an event says about the seed; what it does not mention stays."""
    for name in ("alpha", "improvement"):
        value = data.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            setattr(record, name, float(value))
    # A source that counts epochs itself knows better than we do when telemetry was attached late.
    record.epochs_total = max(record.epochs_total, _count(data.get("epochs_total")) or 0)
    if record.parameters is None:
        record.parameters = _count(data.get("parameters"))
    blueprint = data.get("blueprint_id")
    if record.blueprint_id is None and blueprint is not None:
        record.blueprint_id = str(blueprint)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def state_dict(record: SeedRecord) -> dict[str, Any]:
    """Return a seed's state as plain data for a checkpoint; `restore` takes it back in another process."""
    snapshot = record.snapshot()
    state: dict[str, Any] = {name: getattr(snapshot, name) for name in type(snapshot).__dataclass_fields__}
    state["ids"] = {"trace_id": f"{record.ids.trace_id:032x}", "span_id": f"{record.ids.span_id:016x}"}
    state["first_root"] = f"{record.first_root:016x}"
    state["stage"] = record.stage.label
    state["previous"] = record.previous.label if record.previous else None
    return state | {"version": STATE_VERSION, "history": [list(entry) for entry in record.history]}


def restore(state: object) -> SeedRecord:
    """Return the record that `state_dict` saved, as the next attempt of the same life in the same trace.

    Raises:
        ConfigurationError: The state is not one of ours, or is incomplete.
    """
    if not isinstance(state, Mapping) or state.get("version") != STATE_VERSION:
        raise ConfigurationError(
            f"This is no seed state of version {STATE_VERSION}; pass what Seed.state_dict() returned, unchanged."
        )
    try:
        fields = {name: state[name] for name in SeedSnapshot.__dataclass_fields__}
        fields["ids"] = SpanIds(_identity(state["ids"]["trace_id"], 128), new_span_id())
        fields["first_root"] = _identity(state["first_root"], 64)
        fields["stage"] = Stage.parse(state["stage"])
        fields["previous"] = None if state["previous"] is None else Stage.parse(state["previous"])
        fields["history"] = [(str(label), int(at)) for label, at in state["history"]]
        fields["attempt"] = state["attempt"] + 1
        return SeedRecord(**_checked(fields))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"The seed state is incomplete or damaged: {error!r}.") from error


def _identity(text: str, bits: int) -> int:
    value = int(text, 16)
    if not 0 < value < 2**bits:
        raise ValueError(f"{text!r} is no identity of {bits} bits")
    return value


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(fields["seed_id"], str) or not fields["seed_id"]:
        raise ValueError("'seed_id' is no text")
    for name in ("attempt", "germinated_at", "stage_since", "epochs_total", "epochs_in_stage", "isolation_violations"):
        if _count(fields[name]) is None:
            raise ValueError(f"{name!r} is no whole number")
    return fields
