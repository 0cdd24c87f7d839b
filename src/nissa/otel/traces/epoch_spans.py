"""One trace per epoch: ``epoch``, and below it ``validation``, ``checkpoint``, ``red_flag`` and sampled ``step`` spans."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanContext, Status, StatusCode

from nissa.events import SpanIds, TelemetryEvent
from nissa.otel.findings import finding_attributes
from nissa.otel.traces.spans import end_span, remote
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names

if TYPE_CHECKING:
    from nissa.hub.measurements import DiagnosisMeasured, StepMeasured, ValidationMeasured
    from nissa.otel.logs import EventLog
    from nissa.otel.traces.spans import SpanFactory


@dataclass(frozen=True, slots=True)
class Begun:
    """Number, start time and span context of an epoch that is open or has just ended."""

    number: int | None
    at: int
    context: SpanContext


class EpochSpans:
    """Starts and ends the spans of epochs.

    Args:
        factory: Starts spans.
        log: Emits the narrative as a log-based Event.
        common: Attributes of every span.
        steps: Export a span per sampled step.

    Attributes:
        run_config: Hyperparameters of the run as attributes, which the span of each epoch has.
    """

    def __init__(self, factory: "SpanFactory", log: "EventLog", common: dict[str, Any], *, steps: bool) -> None:
        self._factory = factory
        self._log = log
        self._common = common
        self._steps = steps
        self.run_config: dict[str, Any] = {}
        self._open: dict[str | None, Span] = {}
        # The open epoch and the one before it: step statistics may arrive after the next epoch has started.
        self._recent: dict[str | None, deque[Begun]] = {}

    def context(self, env_id: str | None) -> SpanContext | None:
        """Return the context of an environment's open epoch."""
        span = self._open.get(env_id)
        return span.get_span_context() if span is not None else None

    def context_of(self, event: TelemetryEvent) -> SpanContext | None:
        """Return the context of the epoch whose ids an event has; else that of its environment's open epoch."""
        ids = ids_of(event)
        return self.context(event.env_id) if ids is None else self._parent(event.env_id, ids)

    def open(self, env_id: str | None) -> Begun | None:
        """Return an environment's open epoch."""
        return self._recent[env_id][-1] if env_id in self._open else None

    def dropped(self, env_id: str | None, epoch: SpanIds) -> bool:
        """Whether the sampler has dropped the span of an epoch; exemplars must not refer to it then."""
        context = self._parent(env_id, epoch)
        return context is not None and not context.trace_flags.sampled

    def begin(self, event: TelemetryEvent) -> None:
        """Start the span of an epoch; end the previous one if it is still open."""
        self._close(event.env_id, event.time_unix_nano)
        at = event.time_unix_nano
        # Hyperparameters first: the SDK drops the oldest attributes above its limit.
        attributes = {**self.run_config, **self._common, attr.ENV_ID: event.env_id, attr.EPOCH: event.epoch}
        ids, first = ids_of(event), event.data.get("parent_span_id")
        # The span of the process in which a checkpoint was saved during the epoch.
        parent = remote(SpanIds(ids.trace_id, int(first, 16))) if ids and first else None
        span = self._factory.start(names.EPOCH, at, attributes, ids=ids, parent=parent)
        self._factory.announce(span, names.EPOCH, at, attributes)
        self._open[event.env_id] = span
        recent = self._recent.setdefault(event.env_id, deque(maxlen=2))
        recent.append(Begun(event.epoch, at, span.get_span_context()))

    def end(self, event: TelemetryEvent) -> None:
        """End the span of an epoch."""
        self._close(event.env_id, event.time_unix_nano, event.data.get("error"))

    def interrupt(self, at: int, reason: str | None) -> None:
        """End the spans of all open epochs with an error status."""
        for env_id in list(self._open):
            self._close(env_id, at, reason or "the run ended within the epoch")

    def step(self, step: "StepMeasured") -> None:
        """Export a span for a sampled step."""
        if not (self._steps and step.sampled and step.duration is not None and step.epoch_ids is not None):
            return
        attributes = {**self._common, attr.ENV_ID: step.env_id, attr.STEP: step.step, attr.LOSS: step.loss}
        start = step.time_unix_nano - round(step.duration * 1e9)
        parent = self._parent(step.env_id, step.epoch_ids)
        end_span(self._factory.start(names.STEP, start, attributes, parent=parent), step.time_unix_nano)

    def validation(self, seen: "ValidationMeasured") -> None:
        """Export a span for a validation; its narrative is a span attribute and a log-based Event."""
        attributes = {
            **self._common,
            attr.ENV_ID: seen.env_id,
            attr.EPOCH: seen.epoch,
            attr.LOSS: seen.loss,
            attr.ACCURACY: seen.accuracy,
            attr.NARRATIVE: seen.narrative,
        }
        parent = self._parent(seen.env_id, seen.epoch_ids)
        span = self._factory.start(names.VALIDATION, seen.started, attributes, parent=parent)
        end_span(span, seen.time_unix_nano)
        flags = [name for name, raised in seen.red_flags.items() if raised]
        self._log.emit(
            names.EVENT_NARRATIVE,
            seen.time_unix_nano,
            {**attributes, attr.RED_FLAG_NAME: flags or None},
            span=span.get_span_context(),
            body=seen.narrative,
        )

    def diagnosis(self, seen: "DiagnosisMeasured") -> None:
        """Emit the narrative of a diagnosis without a validation as a log-based Event."""
        attributes = {
            **self._common,
            attr.ENV_ID: seen.env_id,
            attr.EPOCH: seen.epoch,
            attr.STEP: seen.step,
            attr.NARRATIVE: seen.narrative,
            attr.RED_FLAG_NAME: [name for name, raised in seen.red_flags.items() if raised] or None,
        }
        parent = self._parent(seen.env_id, seen.epoch_ids)
        self._log.emit(names.EVENT_NARRATIVE, seen.time_unix_nano, attributes, span=parent, body=seen.narrative)

    def checkpoint(self, event: TelemetryEvent) -> None:
        """Export a span for saving a checkpoint; its status is an error if saving failed."""
        attributes = {
            **self._common,
            attr.ENV_ID: event.env_id,
            attr.EPOCH: event.epoch,
            attr.CHECKPOINT_PATH: event.data.get("path"),
            attr.CHECKPOINT_SAVED: not event.data.get("error"),
        }
        parent = self._parent(event.env_id, ids_of(event))
        started, at = event.data.get("started"), event.time_unix_nano
        start = started if isinstance(started, int) and 0 <= started <= at else at
        span = self._factory.start(names.CHECKPOINT, start, attributes, parent=parent)
        if event.data.get("error"):
            span.set_status(Status(StatusCode.ERROR, str(event.data["error"])))
        end_span(span, event.time_unix_nano)

    def red_flag(self, event: TelemetryEvent) -> None:
        """Export a zero-length span for a raised red flag, in the epoch of the step or validation that caused it."""
        at, recent = event.time_unix_nano, self._recent.get(event.env_id, ())
        # Step statistics arrive with a delay, so the next epoch may have started already: search by time.
        epoch = next((begun for begun in reversed(recent) if begun.at <= at), None)
        attributes = {
            **self._common,
            attr.ENV_ID: event.env_id,
            attr.EPOCH: event.epoch if epoch is None else epoch.number,
            attr.STEP: event.data.get("step"),
            attr.RED_FLAG_NAME: event.data.get("flag"),
            attr.EVENT_MESSAGE: event.message or None,
            **finding_attributes(event),
        }
        parent = None if epoch is None else epoch.context
        end_span(self._factory.start(names.RED_FLAG, at, attributes, parent=parent), at)

    def _parent(self, env_id: str | None, epoch: SpanIds | None) -> SpanContext | None:
        """Return the span context of an open or ended epoch, with the sampler's decision if it is still known."""
        if epoch is None:
            return None
        recent = self._recent.get(env_id, ())
        found = (begun.context for begun in recent if begun.context.span_id == epoch.span_id)
        return next(found, remote(epoch))

    def _close(self, env_id: str | None, at: int, error: str | None = None) -> None:
        span = self._open.pop(env_id, None)
        if span is None:
            return
        if error:
            span.set_status(Status(StatusCode.ERROR, str(error)))
        end_span(span, at)


def ids_of(event: TelemetryEvent) -> SpanIds | None:
    """Return the trace and span id of the event's epoch, None if the event has none."""
    trace_id, span_id = _identity(event, "trace_id", 128), _identity(event, "span_id", 64)
    return SpanIds(trace_id, span_id) if trace_id and span_id else None


def _identity(event: TelemetryEvent, key: str, bits: int) -> int:
    """Return an id in the event's data; 0, which is no id, for anything else."""
    try:
        found = int(str(event.data.get(key, "0")), 16)
    except ValueError:
        return 0
    return found if 0 < found < 2**bits else 0
