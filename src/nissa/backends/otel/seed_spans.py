"""A seed's life as one trace: a root for all of it, a child per stage, and below that one for each gate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Span, SpanContext, Status, StatusCode

from nissa.backends.otel.labels import check_name
from nissa.backends.otel.spans import present, remote
from nissa.events import EventType, SeedSnapshot, SpanIds, Stage, TelemetryEvent
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv import spans as names

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.backends.otel.epoch_spans import Begun
    from nissa.backends.otel.logs import EventLog
    from nissa.backends.otel.spans import SpanFactory
    from nissa.backends.otel.store import MetricStore

_FINAL: Final = (Stage.FOSSILIZED, Stage.CULLED)
_INTERRUPTED: Final = "interrupted"
_EVENTS: Final = frozenset({EventType.SEED_GATE_EVALUATED, EventType.ISOLATION_VIOLATION})


@dataclass(slots=True)
class _Life:
    """The open spans of one seed."""

    root: Span
    stage: Span | None
    seed: SeedSnapshot


class SeedSpans:
    """Opens and closes the spans of all seeds.

    Args:
        factory: Starts spans.
        log: Takes Events.
        store: Counts seeds that the sampler dropped.
        common: Attributes of every span.
        epoch_of: Returns an environment's open epoch, None where it has none.
    """

    def __init__(
        self,
        factory: "SpanFactory",
        log: "EventLog",
        store: "MetricStore",
        common: dict[str, Any],
        epoch_of: "Callable[[str | None], Begun | None]",
    ) -> None:
        self._factory = factory
        self._log = log
        self._store = store
        self._common = common
        self._epoch_of = epoch_of
        self._lives: dict[SpanIds, _Life] = {}
        self._cooling: dict[SpanIds, tuple[Span, SeedSnapshot]] = {}
        self._dropped: set[SpanIds] = set()
        self._handlers: dict[str, Callable[[TelemetryEvent, SeedSnapshot], None]] = {
            EventType.SEED_GERMINATED: self._begin,
            EventType.CHECKPOINT_LOADED: self._begin,
            EventType.SEED_STAGE_CHANGED: self._change,
            EventType.SEED_GATE_EVALUATED: self._gate,
            EventType.ISOLATION_VIOLATION: self._violation,
            EventType.SEED_FOSSILIZED: self._end,
            EventType.SEED_CULLED: self._end,
        }

    def emit(self, event: TelemetryEvent) -> bool:
        """Take an event about a seed; return whether it became an Event of its own."""
        if event.seed is None:
            return False
        if event.refused is not None:
            self._refused(event, event.seed)
            return True
        if event.event_type in self._handlers:
            self._handlers[event.event_type](event, event.seed)
        return event.event_type in _EVENTS

    def interrupt(self, at: int, reason: str | None) -> None:
        """End every life that is still open, and every stage after one."""
        for span, _ in self._cooling.values():
            span.end(at)
        self._cooling.clear()
        for life in list(self._lives.values()):
            self._conclude(life, at, reason)

    def context_of(self, event: TelemetryEvent) -> SpanContext | None:
        """Return the span that an event about a seed belongs to."""
        life = self._lives.get(event.seed.ids) if event.seed else None
        if life is None:
            return self._root(event.seed.ids) if event.seed else None
        return (life.stage or life.root).get_span_context()

    def _conclude(self, life: _Life, at: int, reason: str | None) -> None:
        """End a life whose end nobody told."""
        if life.seed.stage in _FINAL:  # the producer never sent the end that its stage change announced
            self._close(life, life.seed, life.seed.stage_since, life.seed.stage.label)
            return
        life.root.set_status(Status(StatusCode.ERROR, reason or "the run ended before the seed's fate was decided"))
        self._close(life, life.seed, at, _INTERRUPTED)

    def _conclude_earlier(self, seed: SeedSnapshot, at: int) -> None:
        """End what earlier lives of the same name have left open."""
        for ids, (span, earlier) in list(self._cooling.items()):
            if (earlier.env_id, earlier.seed_id) == (seed.env_id, seed.seed_id):
                span.end(at)
                del self._cooling[ids]
        for life in list(self._lives.values()):
            if (life.seed.env_id, life.seed.seed_id) == (seed.env_id, seed.seed_id):
                self._conclude(life, at, "another life of the same seed began")

    def _begin(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        self._conclude_earlier(seed, event.time_unix_nano)
        attributes = {**self._seed(seed), attr.SEED_ADOPTED: event.data.get("adopted")}
        resumed = seed.attempt > 0
        first = remote(SpanIds(seed.ids.trace_id, seed.first_root)) if resumed else None
        at = event.time_unix_nano
        root = self._factory.start(names.SEED, at, attributes, ids=seed.ids, parent=first, links=self._links(seed))
        if not root.is_recording():
            self._store.add(metric.SEED_UNSAMPLED, {} if seed.env_id is None else {attr.ENV_ID: seed.env_id})
            self._dropped.add(seed.ids)
        self._factory.announce(root, names.SEED, at, attributes)
        life = _Life(root, None, seed)
        self._lives[seed.ids] = life
        self._enter(life, event, seed)

    def _change(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        life = self._lives.get(seed.ids)
        if life is not None and life.seed.stage in _FINAL:
            self._conclude(life, event.time_unix_nano, None)  # the slot cools down already
            life = None
        if life is None:
            self._cooldown(event, seed)
            return
        life.seed = seed
        if life.stage is not None:
            life.stage.set_attributes(present({attr.SEED_ALPHA: seed.alpha}))
            life.stage.end(event.time_unix_nano)
            life.stage = None
        self._enter(life, event, seed)

    def _enter(self, life: _Life, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        name, at = names.SEED_STAGE_PREFIX + seed.stage.label, event.time_unix_nano
        attributes = self._moment(event, seed)
        span = self._factory.start(name, at, attributes, parent=life.root.get_span_context(), links=self._links(seed))
        if seed.stage in _FINAL:
            span.end(at)
            return
        self._factory.announce(span, name, at, attributes)
        life.stage = span

    def _cooldown(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        """Show the stages that a slot goes through after a cull; the seed's life has ended, its trace goes on."""
        previous = self._cooling.pop(seed.ids, None)
        if previous is not None:
            previous[0].end(event.time_unix_nano)
        name = names.SEED_STAGE_PREFIX + seed.stage.label
        at, attributes = event.time_unix_nano, self._moment(event, seed)
        span = self._factory.start(name, at, attributes, parent=self._root(seed.ids))
        if seed.stage is Stage.DORMANT:
            span.end(at)
            return
        self._factory.announce(span, name, at, attributes)
        self._cooling[seed.ids] = (span, seed)

    def _root(self, ids: SpanIds) -> SpanContext:
        """Return the context of a root span that has ended, or that another process wrote."""
        return remote(ids, sampled=ids not in self._dropped)

    def _gate(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        self._note(names.EVENT_GATE, event, seed, gate_attributes(event))
        attributes = {**self._moment(event, seed), **gate_attributes(event)}
        span = self._factory.start(names.GATE, event.time_unix_nano, attributes, parent=self.context_of(event))
        for check in event.data.get("checks_failed") or ():  # a search finds no member of a list
            span.add_event(names.EVENT_FAILED_CHECK, {attr.GATE_CHECK: check_name(str(check))}, event.time_unix_nano)
        span.end(event.time_unix_nano)

    def _violation(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        counted = {attr.SEED_ISOLATION_VIOLATIONS: seed.isolation_violations}
        self._note(names.EVENT_ISOLATION, event, seed, {**counted, attr.EVENT_MESSAGE: event.message or None})

    def _refused(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        wanted = {attr.TRANSITION_REFUSED: event.refused, attr.SEED_TO: event.data.get("to")}
        self._note(names.EVENT_REFUSED, event, seed, wanted)

    def _note(self, name: str, event: TelemetryEvent, seed: SeedSnapshot, attributes: dict[str, Any]) -> None:
        life = self._lives.get(seed.ids)
        span = (life.stage or life.root) if life else None
        if span is not None:
            span.add_event(name, present(attributes), event.time_unix_nano)
        self._log.emit(
            name,
            event.time_unix_nano,
            {**self._seed(seed), **attributes},
            span=self.context_of(event),
            severity=event.severity,
            body=event.message or event.refused,
        )

    def _end(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        life = self._lives.get(seed.ids)
        if life is None:
            return
        life.root.set_attributes(present({attr.SEED_CULL_REASON: event.data.get("reason")}))
        self._close(life, seed, event.time_unix_nano, seed.stage.label)

    def _close(self, life: _Life, seed: SeedSnapshot, at: int, outcome: str) -> None:
        last = {
            attr.SEED_OUTCOME: outcome,
            attr.SEED_STAGE: seed.stage.label,
            attr.SEED_IMPROVEMENT: seed.improvement,
            attr.SEED_EPOCHS: seed.epochs_total,
            attr.SEED_ALPHA: seed.alpha,
            attr.SEED_ISOLATION_VIOLATIONS: seed.isolation_violations or None,
        }
        if life.stage is not None:
            life.stage.set_attributes(present({attr.SEED_OUTCOME: outcome, attr.SEED_ALPHA: seed.alpha}))
            life.stage.end(at)
        life.root.set_attributes(present(last))
        life.root.end(at)
        self._lives.pop(seed.ids, None)

    def _links(self, seed: SeedSnapshot) -> list[SpanContext]:
        epoch = self._epoch_of(seed.env_id)
        return [] if epoch is None else [epoch.context]

    def _moment(self, event: TelemetryEvent, seed: SeedSnapshot) -> dict[str, Any]:
        """Return the attributes of what begins with an event: those of the seed, and the epoch."""
        epoch = self._epoch_of(seed.env_id) if event.epoch is None else None
        return {**self._seed(seed), attr.EPOCH: event.epoch if epoch is None else epoch.number}

    def _seed(self, seed: SeedSnapshot) -> dict[str, Any]:
        return {
            **self._common,
            attr.SEED_ID: seed.seed_id,
            attr.SEED_SLOT: seed.slot_id,
            attr.ENV_ID: seed.env_id,
            attr.BLUEPRINT_ID: seed.blueprint_id,
            attr.SEED_STAGE: seed.stage.label,
            attr.SEED_PARAMETERS: seed.parameters,
            attr.SEED_ATTEMPT: seed.attempt,
            attr.SEED_ALPHA: seed.alpha,
        }


def gate_attributes(event: TelemetryEvent) -> dict[str, Any]:
    """Return what a gate decided, as attributes."""
    data = event.data
    return {
        attr.GATE_NAME: data.get("gate"),
        attr.GATE_PASSED: data.get("passed"),
        attr.GATE_SCORE: data.get("score"),
        attr.GATE_CHECKS_PASSED: data.get("checks_passed") or None,
        attr.GATE_CHECKS_FAILED: data.get("checks_failed") or None,
        attr.GATE_MESSAGE: event.message or data.get("message") or None,
    }
