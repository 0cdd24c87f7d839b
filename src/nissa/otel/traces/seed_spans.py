"""Trace per seed: a root span from germination to its end, a child span per stage, and below it a span per gate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Span, SpanContext, Status, StatusCode

from nissa.events import EventType, SeedSnapshot, SpanIds, Stage, TelemetryEvent
from nissa.otel.traces.spans import end_span, present, remote
from nissa.seeds.stages import FINAL
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv import spans as names
from nissa.semconv.cardinality import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.otel.logs import EventLog
    from nissa.otel.metrics.store import MetricStore
    from nissa.otel.traces.epoch_spans import Begun
    from nissa.otel.traces.spans import SpanFactory
    from nissa.semconv.cardinality import CardinalityLimiter

_INTERRUPTED: Final = "interrupted"
_EVENTS: Final = frozenset({EventType.SEED_GATE_EVALUATED, EventType.ISOLATION_VIOLATION})


_Key = tuple[str | None, str]
"""Environment and id of a seed; at most one trace per key is open."""


@dataclass(slots=True)
class _OpenSpans:
    """Open spans of one seed: the root and the current stage."""

    root: Span
    stage: Span | None = None


class SeedSpans:
    """Starts and ends the spans of all seeds.

    Args:
        factory: Starts spans.
        log: Emits log-based Events.
        store: Metric store, for the count of seeds that the sampler dropped.
        common: Attributes of every span.
        epoch_of: Returns the open epoch of an environment, None if it has none.
        environments: Limits the environments with counts of their own.
        most_seeds: Maximum number of ended seeds whose drop by the sampler is remembered.
    """

    def __init__(
        self,
        factory: "SpanFactory",
        log: "EventLog",
        store: "MetricStore",
        common: dict[str, Any],
        epoch_of: "Callable[[str | None], Begun | None]",
        *,
        environments: "CardinalityLimiter",
        most_seeds: int,
    ) -> None:
        self._factory = factory
        self._log = log
        self._store = store
        self._common = common
        self._epoch_of = epoch_of
        self._environments = environments
        self._most_seeds = most_seeds
        self._open: dict[_Key, _OpenSpans] = {}
        # Spans of slot stages after a cull. They stay open after the root span of their seed has ended.
        self._cooling: dict[_Key, Span] = {}
        # Ended seeds that the sampler dropped, oldest first: later spans and Events must not refer to their traces.
        self._dropped: dict[SpanIds, None] = {}
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
        """Record an event of a seed; return True if a log-based Event was emitted for it here."""
        if event.seed is None:
            return False
        if event.refused is not None:
            self._refused(event, event.seed)
            return True
        if event.event_type in self._handlers:
            self._handlers[event.event_type](event, event.seed)
        return event.event_type in _EVENTS

    def interrupt(self, at: int, reason: str | None) -> None:
        """End all open spans: seeds with an error status, and stages after a cull."""
        for span in self._cooling.values():
            end_span(span, at)
        self._cooling.clear()
        for key in list(self._open):
            self._interrupt(key, at, reason or "the run ended before the seed's fate was decided")

    def context_of(self, event: TelemetryEvent) -> SpanContext | None:
        """Return the context of the span that an event belongs to: the current stage, else the seed's root."""
        if event.seed is None:
            return None
        spans = self._open.get(_key(event.seed))
        return self._root(event.seed.ids) if spans is None else (spans.stage or spans.root).get_span_context()

    def _interrupt(self, key: _Key, at: int, reason: str) -> None:
        """End the spans of a seed whose end was never reported, with an error status."""
        spans = self._open.pop(key)
        spans.root.set_status(Status(StatusCode.ERROR, reason))
        if spans.stage is not None:
            spans.stage.set_attributes({attr.SEED_OUTCOME: _INTERRUPTED})
            end_span(spans.stage, at)
        spans.root.set_attributes({attr.SEED_OUTCOME: _INTERRUPTED})
        end_span(spans.root, at)

    def _begin(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        key, at = _key(seed), event.time_unix_nano
        self._stop_cooling(key, at)
        if key in self._open:
            self._interrupt(key, at, "another life of the same seed began")
        attributes = {**self._seed(seed), attr.SEED_ADOPTED: event.data.get("adopted")}
        resumed = seed.attempt > 0
        first = remote(SpanIds(seed.ids.trace_id, seed.first_root)) if resumed else None
        root = self._factory.start(names.SEED, at, attributes, ids=seed.ids, parent=first, links=self._links(seed))
        if not root.is_recording():
            env = {} if seed.env_id is None else {attr.ENV_ID: self._environments.label(seed.env_id)}
            self._store.add(metric.SEED_UNSAMPLED, env)
        self._factory.announce(root, names.SEED, at, attributes)
        spans = self._open[key] = _OpenSpans(root)
        self._update(spans, seed)
        self._enter(spans, event, seed)

    def _change(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        spans = self._open.get(_key(seed))
        if spans is None:
            self._cooldown(event, seed)
            return
        self._leave(spans, event, seed)
        self._enter(spans, event, seed)

    def _leave(self, spans: _OpenSpans, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        """End the span of the current stage."""
        self._update(spans, seed)
        if spans.stage is not None:
            spans.stage.set_attributes(present({attr.SEED_ALPHA: seed.alpha}))
            end_span(spans.stage, event.time_unix_nano)
            spans.stage = None

    @staticmethod
    def _update(spans: _OpenSpans, seed: SeedSnapshot) -> None:
        """Set the latest values on the root span, so that it is complete even if it ends unexpectedly."""
        last = {
            attr.SEED_STAGE: seed.stage.label,
            attr.SEED_IMPROVEMENT: seed.improvement,
            attr.SEED_EPOCHS: seed.epochs_total,
            attr.SEED_ALPHA: seed.alpha,
            attr.SEED_ISOLATION_VIOLATIONS: seed.isolation_violations or None,
        }
        spans.root.set_attributes(present(last))

    def _enter(self, spans: _OpenSpans, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        name, at = names.SEED_STAGE_PREFIX + seed.stage.label, event.time_unix_nano
        attributes = self._moment(event, seed)
        span = self._factory.start(name, at, attributes, parent=spans.root.get_span_context(), links=self._links(seed))
        if seed.stage in FINAL:
            end_span(span, at)
            return
        self._factory.announce(span, name, at, attributes)
        spans.stage = span

    def _cooldown(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        """Export the stages of a slot after a cull as children of the seed's root span, which has ended."""
        self._stop_cooling(_key(seed), event.time_unix_nano)
        name = names.SEED_STAGE_PREFIX + seed.stage.label
        at, attributes = event.time_unix_nano, self._moment(event, seed)
        span = self._factory.start(name, at, attributes, parent=self._root(seed.ids))
        if seed.stage is Stage.DORMANT:
            end_span(span, at)
            return
        self._factory.announce(span, name, at, attributes)
        self._cooling[_key(seed)] = span

    def _stop_cooling(self, key: _Key, at: int) -> None:
        span = self._cooling.pop(key, None)
        if span is not None:
            end_span(span, at)

    def _root(self, ids: SpanIds) -> SpanContext:
        """Return the context of a root span that has ended or that another process exported."""
        return remote(ids, sampled=ids not in self._dropped)

    def _gate(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        self._note(names.EVENT_GATE, event, seed, gate_attributes(event))
        attributes = {**self._moment(event, seed), **gate_attributes(event)}
        span = self._factory.start(names.GATE, event.time_unix_nano, attributes, parent=self.context_of(event))
        for check in event.data.get("checks_failed") or ():  # trace search cannot match one item of a list attribute
            span.add_event(names.EVENT_FAILED_CHECK, {attr.GATE_CHECK: check_name(str(check))}, event.time_unix_nano)
        end_span(span, event.time_unix_nano)

    def _violation(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        counted = {attr.SEED_ISOLATION_VIOLATIONS: seed.isolation_violations}
        self._note(names.EVENT_ISOLATION, event, seed, {**counted, attr.EVENT_MESSAGE: event.message or None})

    def _refused(self, event: TelemetryEvent, seed: SeedSnapshot) -> None:
        wanted = {attr.TRANSITION_REFUSED: event.refused, attr.SEED_TO: event.data.get("to")}
        self._note(names.EVENT_REFUSED, event, seed, wanted)

    def _note(self, name: str, event: TelemetryEvent, seed: SeedSnapshot, attributes: dict[str, Any]) -> None:
        spans = self._open.get(_key(seed))
        span = (spans.stage or spans.root) if spans else None
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
        spans = self._open.pop(_key(seed), None)
        if spans is None:
            return
        self._leave(spans, event, seed)
        self._enter(spans, event, seed)
        outcome = {attr.SEED_OUTCOME: seed.stage.label, attr.SEED_CULL_REASON: event.data.get("reason")}
        spans.root.set_attributes(present(outcome))
        end_span(spans.root, event.time_unix_nano)
        if not spans.root.get_span_context().trace_flags.sampled:
            self._dropped[seed.ids] = None  # later spans and Events must not refer to a dropped trace
            if len(self._dropped) > self._most_seeds:
                del self._dropped[next(iter(self._dropped))]

    def _links(self, seed: SeedSnapshot) -> list[SpanContext]:
        epoch = self._epoch_of(seed.env_id)
        return [] if epoch is None else [epoch.context]

    def _moment(self, event: TelemetryEvent, seed: SeedSnapshot) -> dict[str, Any]:
        """Return the attributes of a span that starts with an event: those of the seed, and the epoch."""
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


def _key(seed: SeedSnapshot) -> _Key:
    return seed.env_id, seed.seed_id


def gate_attributes(event: TelemetryEvent) -> dict[str, Any]:
    """Return the decision of a gate as attributes."""
    data = event.data
    return {
        attr.GATE_NAME: data.get("gate"),
        attr.GATE_PASSED: data.get("passed"),
        attr.GATE_SCORE: data.get("score"),
        attr.GATE_CHECKS_PASSED: data.get("checks_passed") or None,
        attr.GATE_CHECKS_FAILED: data.get("checks_failed") or None,
        attr.GATE_MESSAGE: event.message or data.get("message") or None,
    }
