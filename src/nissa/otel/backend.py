"""OpenTelemetry backend: converts events and measurements of the hub to spans, metrics and log-based Events."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs, trace
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.events import EventType, Stage, TelemetryEvent
from nissa.hub.measurements import (
    DiagnosisMeasured,
    GradientsMeasured,
    LoggedMeasured,
    Measurement,
    ReplicasCompared,
    StepMeasured,
    StepSkipped,
    ValidationMeasured,
    WholeModelMeasured,
)
from nissa.otel.findings import FINDING_DATA, finding_attributes
from nissa.otel.logs import EventLog
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.recorder import MetricRecorder
from nissa.otel.metrics.store import MetricStore
from nissa.otel.process_log import ProcessLog
from nissa.otel.traces.epoch_spans import EpochSpans
from nissa.otel.traces.run_span import RunSpan, span_context
from nissa.otel.traces.seed_spans import SeedSpans, gate_attributes
from nissa.otel.traces.spans import SpanFactory
from nissa.seeds.stages import END_OF
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import SpanContext

    from nissa.config import TelemetryConfig
    from nissa.distributed.trace_context import TraceContext
    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.otel.setup import Providers

SCOPE: Final = "nissa"

_SEED_EVENTS: Final = frozenset(
    {
        EventType.SEED_GERMINATED,
        EventType.SEED_STAGE_CHANGED,
        EventType.SEED_GATE_EVALUATED,
        EventType.SEED_FOSSILIZED,
        EventType.SEED_CULLED,
        EventType.ISOLATION_VIOLATION,
        EventType.CHECKPOINT_LOADED,
    }
)
_SPANS_ONLY: Final = frozenset({EventType.EPOCH_STARTED, EventType.EPOCH_COMPLETED})
_EVENT_NAMES: Final[dict[str, str]] = {
    EventType.SEED_STAGE_CHANGED: names.EVENT_STAGE,
    EventType.SEED_GATE_EVALUATED: names.EVENT_GATE,
    EventType.ISOLATION_VIOLATION: names.EVENT_ISOLATION,
}


class OpenTelemetryBackend:
    """Converts events and measurements; the hub calls it from this backend's worker thread.

    Args:
        providers: Tracer, meter and logger providers of the run.
        config: Selects the exported telemetry.
        run_id: Id of the run.
        start: Start time of the run, nanoseconds since the Unix epoch.
        error_boundary: Catches errors of metric collection, so that the application's own metrics are still exported.
        version: Version of Nissa, for the instrumentation scope.
        trace: Trace context that the run was started in; None without one.

    Attributes:
        refused: Reason why the run's metrics could not be added to the meter provider; None if they were added.
    """

    name = "opentelemetry"

    def __init__(
        self,
        providers: "Providers",
        config: "TelemetryConfig",
        *,
        run_id: str,
        start: int,
        error_boundary: "ErrorBoundary",
        version: str,
        trace: "TraceContext | None" = None,
    ) -> None:
        limits = config.limits
        gauges = GaugeLog(limits.gauge_points_per_export, limits.step_points_per_export)
        self.store = MetricStore(start, gauges, sections=error_boundary.sections)
        self._providers = providers
        self._ended = False
        common = {attr.RUN_ID: run_id}
        within = span_context(trace)
        factory = SpanFactory(_tracer(providers, version), announce=config.spans.started, within=within)
        self._run = RunSpan(factory, within, common)
        self._log = EventLog(_event_logger(providers, version))
        self._records = ProcessLog(_logger_provider(providers), common)
        self._epochs = EpochSpans(factory, self._log, common, steps=config.spans.steps)
        self._recorder = MetricRecorder(self.store, config, dropped=self._epochs.dropped)
        self._seeds = SeedSpans(
            factory,
            self._log,
            self.store,
            common,
            self._epochs.open,
            environments=self._recorder.environments,
            most_seeds=config.limits.max_seeds,
        )
        self._common = common
        self._producer = MetricProducer(
            self.store,
            _scope(version),
            most_buckets=config.limits.histogram_buckets,
            error_boundary=error_boundary,
        )
        self.refused = (
            self._producer.install(providers.meter, providers.reader, others=providers.other_readers)
            if providers.meter is not None
            else "telemetry is off"
        )
        self._handlers: dict[str, Callable[[TelemetryEvent], None]] = {
            EventType.TRAINING_STARTED: self._begin,
            EventType.EPOCH_STARTED: self._epochs.begin,
            EventType.EPOCH_COMPLETED: self._epochs.end,
            EventType.TRAINING_ENDED: self._end,
            EventType.CHECKPOINT_SAVED: self._epochs.checkpoint,
            EventType.RED_FLAG_RAISED: self._epochs.red_flag,
        }

    def emit(self, event: TelemetryEvent) -> None:
        """Record an event as metrics, spans and a log-based Event."""
        if event.event_type == EventType.LOG_RECORDED:
            self._records.emit(event, self._epochs.context_of(event) or self._run.context)
            return
        self._recorder.event(event)
        noted = event.event_type in _SPANS_ONLY
        if event.event_type in _SEED_EVENTS:
            noted = self._seeds.emit(event)
        elif event.event_type in self._handlers:
            self._handlers[event.event_type](event)
        if event.event_type in END_OF.values() and event.transition is not None:
            self._note(_change_of(event, event.transition))
        if not noted:
            self._note(event)

    def record(self, measurement: Measurement) -> None:
        """Record a measurement as metrics and spans."""
        if isinstance(measurement, StepMeasured):
            self._recorder.step(measurement)
            if measurement.primary:
                self._epochs.step(measurement)
        elif isinstance(measurement, StepSkipped):
            self._recorder.skipped(measurement)
        elif isinstance(measurement, LoggedMeasured):
            self._recorder.logged(measurement)
        elif isinstance(measurement, GradientsMeasured):
            self._recorder.gradients(measurement)
        elif isinstance(measurement, WholeModelMeasured):
            self._recorder.whole_model(measurement)
        elif isinstance(measurement, ValidationMeasured):
            self._recorder.validation(measurement)
            self._epochs.validation(measurement)
        elif isinstance(measurement, ReplicasCompared):
            self._recorder.replicas(measurement)
        elif isinstance(measurement, DiagnosisMeasured):
            self._recorder.diagnosis(measurement)
            self._epochs.diagnosis(measurement)

    @property
    def healthy(self) -> bool:
        """Whether the run's own export neither lost items nor had them refused; True for exporters of the application."""
        built = self._providers.built
        return built is None or built.log.healthy

    def flush(self, timeout: float) -> bool:
        """Export pending telemetry; return whether that finished within ``timeout`` seconds."""
        return self._providers.flush(timeout)

    def close(self, timeout: float) -> None:
        """Export pending telemetry and remove the run's metrics from the meter provider."""
        self._providers.close(timeout)
        self._producer.uninstall()

    def _begin(self, event: TelemetryEvent) -> None:
        hyperparameters = event.data.get("run_config") or {}
        self._epochs.run_config = {f"{attr.RUN_CONFIG}.{name}": value for name, value in hyperparameters.items()}
        self._run.begin(event)

    def _end(self, event: TelemetryEvent) -> None:
        reason = event.data.get("error")
        self._seeds.interrupt(event.time_unix_nano, reason)
        self._epochs.interrupt(event.time_unix_nano, reason)
        self._run.end(event)

    def _note(self, event: TelemetryEvent) -> None:
        """Emit an event as a log-based Event, in the trace of the seed or epoch it belongs to."""
        known = _EVENT_NAMES.get(event.event_type)
        name = known or names.EVENT_PREFIX + event.event_type.lower()
        seed = event.seed
        attributes: dict[str, Any] = {
            **self._common,
            attr.EVENT_TYPE: str(event.event_type),
            attr.ENV_ID: event.env_id,
            attr.EPOCH: event.epoch,
            attr.SEED_ID: event.seed_id,
            attr.SEED_SLOT: event.slot_id,
            attr.SEED_STAGE: seed.stage.label if seed else None,
            attr.BLUEPRINT_ID: seed.blueprint_id if seed else None,
            attr.SEED_FROM: event.data.get("from"),
            attr.SEED_TO: event.data.get("to"),
            attr.TRANSITION_REFUSED: event.refused,
            attr.EVENT_TRUNCATED: event.truncated or None,
            attr.RED_FLAG_NAME: event.data.get("flag") if event.event_type in _FLAGS else None,
        }
        if event.event_type == EventType.SEED_GATE_EVALUATED:
            attributes |= gate_attributes(event)
        if event.event_type in _OF_FINDINGS:
            attributes |= finding_attributes(event)
        self._log.emit(
            names.EVENT_REFUSED if event.refused else name,
            event.time_unix_nano,
            {**self._run_config(event), **_description(event), **_details(event), **attributes},
            span=self._seeds.context_of(event) or self._epoch_of(event) or self._run.context,
            severity=event.severity,
            body=event.message or event.refused,
        )

    def _epoch_of(self, event: TelemetryEvent) -> "SpanContext | None":
        # A warning is no lifecycle event, so that the end of its epoch may overtake it.
        if event.event_type == EventType.TORCH_WARNING:
            return self._epochs.context_of(event)
        return self._epochs.context(event.env_id)

    def _run_config(self, event: TelemetryEvent) -> dict[str, Any]:
        return self._epochs.run_config if event.event_type == EventType.TRAINING_STARTED else {}


def _change_of(event: TelemetryEvent, transition: tuple[Stage, Stage]) -> TelemetryEvent:
    """Return the stage-change event that corresponds to a fossilization or cull.

    A log query for stage changes then finds the last transition of each seed too.
    """
    before, after = transition
    data = {"from": before.label, "to": after.label}
    return replace(event, event_type=EventType.SEED_STAGE_CHANGED, data=data, message="")


_TOLD: Final = frozenset({"from", "to", "trace_id", "span_id", "blueprint_id", "flag"})
_FLAGS: Final = frozenset({EventType.RED_FLAG_RAISED, EventType.RED_FLAG_CLEARED})
_OF_FINDINGS: Final = _FLAGS | {EventType.GRADIENT_ANOMALY}


def _details(event: TelemetryEvent) -> dict[str, Any]:
    """Return the remaining scalar entries of the event's data, with keys prefixed by ``nissa.event.``."""
    known = _TOLD | FINDING_DATA if event.event_type in _OF_FINDINGS else _TOLD
    return {
        f"{names.EVENT_PREFIX}{key}": value
        for key, value in event.data.items()
        if key not in known and isinstance(value, str | bool | int | float)
    }


def _description(event: TelemetryEvent) -> dict[str, Any]:
    """Return the attributes of the process, which have names of OpenTelemetry."""
    found = event.data.get("attributes") if event.event_type == EventType.PROCESS_DESCRIBED else None
    return dict(found) if isinstance(found, Mapping) else {}


def _scope(version: str) -> InstrumentationScope:
    return InstrumentationScope(SCOPE, version)


def _tracer(providers: "Providers", version: str) -> trace.Tracer:
    tracer: trace.Tracer = (
        trace.NoOpTracer() if providers.tracer is None else providers.tracer.get_tracer(SCOPE, version)
    )
    return tracer


def _event_logger(providers: "Providers", version: str) -> Any:
    return _logger_provider(providers).get_logger(SCOPE, version)


def _logger_provider(providers: "Providers") -> Any:
    return providers.logger if providers.logger is not None else _logs.NoOpLoggerProvider()
