"""A backend whose telemetry stays in memory, and lives of seeds to feed it with."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from nissa.config import TelemetryConfig
from nissa.events import EventType, SeedSnapshot, Severity, SpanIds, Stage, TelemetryEvent
from nissa.hub.error_boundary import ErrorBoundary
from nissa.hub.measurements import GradientHealth, GradientsMeasured
from nissa.kernels.moments import BucketRange, Layout, Moments, Thresholds, decode
from nissa.kernels.reference import measure
from nissa.otel.backend import OpenTelemetryBackend
from nissa.otel.export.building import BuiltPipeline
from nissa.otel.export.export_log import ExportLog
from nissa.otel.export.metric_reader import ExportReader
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.store import MetricStore
from nissa.otel.metrics.temporality import Form
from nissa.otel.setup import Providers
from nissa.seeds.stages import END_OF
from nissa.semconv.metrics import Kind

RESOURCE = Resource({"service.name": "test"})
START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
Point = Any


def metrics_of(data: MetricsData | None, scope: str = "nissa") -> dict[str, Any]:
    """Return a scope's metrics by name; a name that occurs twice is a mistake."""
    found: dict[str, Any] = {}
    for resource in data.resource_metrics if data else ():
        for each in resource.scope_metrics:
            for metric in each.metrics if each.scope.name == scope else ():
                assert metric.name not in found
                found[metric.name] = metric
    return found


def untyped(function: Any) -> Any:
    """Return something of the SDK that it leaves unannotated."""
    return function


class Kit:
    """An `OpenTelemetryBackend` and everything it exported."""

    def __init__(self, *, sampler: Sampler = ALWAYS_ON, settings: Mapping[str, Any] | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.records: InMemoryLogRecordExporter = untyped(InMemoryLogRecordExporter)()
        self.logger = LoggerProvider(shutdown_on_exit=False)
        self.logger.add_log_record_processor(SimpleLogRecordProcessor(self.records))
        self.reader = ExportReader(RESOURCE, {})
        self.meter = MeterProvider([self.reader], resource=RESOURCE, shutdown_on_exit=False)
        self.error_boundary = ErrorBoundary()
        nowhere: Any = None
        built = BuiltPipeline(nowhere, ExportLog({}, ""), self.reader, frozenset({"metrics"}), RESOURCE)
        self.backend = OpenTelemetryBackend(
            Providers(
                self.tracer,
                self.meter,
                self.logger,
                owned=False,
                folder=None,
                origin="memory",
                built=built,
                shared=True,
            ),
            TelemetryConfig.from_profile("diagnostic", settings),
            run_id="run-1",
            start=START,
            error_boundary=self.error_boundary,
            version="1.2.3",
        )

    def emit(self, *events: TelemetryEvent | Iterable[TelemetryEvent]) -> None:
        for event in events:
            if isinstance(event, TelemetryEvent):
                self.backend.emit(event)
            else:
                self.emit(*event)

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Return what was exported, oldest first; ``.started`` twins only where they are asked for."""
        found = self.exporter.get_finished_spans()
        if name is None:
            return [span for span in found if not span.name.endswith(".started")]
        return [span for span in found if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found

    def logs(self, name: str) -> list[ReadableLogRecord]:
        return [each for each in self.records.get_finished_logs() if each.log_record.event_name == name]

    def metrics(self) -> dict[str, Any]:
        return metrics_of(self.reader.take())

    def points(self, name: str) -> list[Point]:
        metric = self.metrics().get(name)
        return list(metric.data.data_points) if metric else []


class Life:
    """Makes the events of one seed as the state table would."""

    def __init__(self, seed_id: str = "s1", *, env_id: str | None = None, blueprint: str | None = "conv") -> None:
        ids = SpanIds(hash((seed_id, env_id)) % 2**127 + 1, hash(seed_id) % 2**62 + 1)
        self.seed = SeedSnapshot(
            seed_id=seed_id,
            env_id=env_id,
            slot_id="r0c1",
            blueprint_id=blueprint,
            parameters=4800,
            ids=ids,
            first_root=ids.span_id,
            attempt=0,
            stage=Stage.GERMINATED,
            previous=None,
            germinated_at=START,
            stage_since=START,
            epochs_total=0,
            epochs_in_stage=0,
            alpha=None,
            improvement=None,
            isolation_violations=0,
        )

    def event(self, kind: str, at: int, data: dict[str, Any] | None = None, **fields: Any) -> TelemetryEvent:
        return TelemetryEvent(
            kind,
            seed_id=self.seed.seed_id,
            slot_id=self.seed.slot_id,
            env_id=self.seed.env_id,
            data=data or {},
            time_unix_nano=START + at * SECOND,
            seed=self.seed,
            **fields,
        )

    def germinate(self, at: int = 0, **data: Any) -> TelemetryEvent:
        return self.event(EventType.SEED_GERMINATED, at, data)

    def advance(self, stage: Stage, at: int, **changes: Any) -> TelemetryEvent:
        before = self.seed
        since = START + at * SECOND
        self.seed = replace(before, stage=stage, previous=before.stage, stage_since=since, **changes)
        data = {"from": before.stage.label, "to": stage.label}
        return self.event(EventType.SEED_STAGE_CHANGED, at, data, before=before)

    def end(self, stage: Stage, at: int, data: dict[str, Any] | None = None, **changes: Any) -> TelemetryEvent:
        change = self.advance(stage, at, **changes)
        return replace(change, event_type=END_OF[stage], data=data or {})

    def fossilize(self, at: int, **changes: Any) -> TelemetryEvent:
        return self.end(Stage.FOSSILIZED, at, **changes)

    def cull(self, at: int, reason: str | None = None, **changes: Any) -> TelemetryEvent:
        return self.end(Stage.CULLED, at, {"reason": reason} if reason else {}, **changes)

    def gate(self, at: int, *, passed: bool, failed: Sequence[str] = (), **data: Any) -> TelemetryEvent:
        told = {"gate": "G2", "passed": passed, "checks_failed": list(failed), **data}
        return self.event(EventType.SEED_GATE_EVALUATED, at, told, message="not yet")

    def refuse(self, at: int) -> TelemetryEvent:
        event = self.event(EventType.SEED_STAGE_CHANGED, at, {"to": "fossilized"}, severity=Severity.WARNING)
        return replace(event, refused="GERMINATED -> FOSSILIZED is not allowed")

    def resume(self, at: int) -> TelemetryEvent:
        span_id = self.seed.ids.span_id ^ 0xFFFF
        self.seed = replace(self.seed, ids=replace(self.seed.ids, span_id=span_id), attempt=self.seed.attempt + 1)
        return self.event(EventType.CHECKPOINT_LOADED, at)


def of_epoch(kind: str, at: int, ids: SpanIds | None, *, env_id: str | None = None, **data: Any) -> TelemetryEvent:
    """Return an event about an epoch."""
    identity = {} if ids is None else {"trace_id": ids.trace_hex, "span_id": f"{ids.span_id:016x}"}
    return TelemetryEvent(kind, env_id=env_id, epoch=3, data=data | identity, time_unix_nano=START + at * SECOND)


def moments_of(*rows: Sequence[float] | np.ndarray, buckets: BucketRange | None = None) -> Moments:
    """Return the statistics of parameters with given gradients."""
    layout = Layout() if buckets is None else Layout(buckets)
    tensors = [torch.as_tensor(np.asarray(row), dtype=torch.float64) for row in rows]
    return decode(measure(tensors, layout, Thresholds()).numpy(), layout)


def measured(
    names: Sequence[str], *rows: Sequence[float] | np.ndarray, at: int = 0, **fields: Any
) -> GradientsMeasured:
    """Return the gradients of one step."""
    told: dict[str, Any] = {"env_id": None, "model_name": None, "step": at, "lag": 0.25} | fields
    health = GradientHealth(score=0.5, global_norm=2.0, layers=len(rows))
    time = START + at * SECOND
    return GradientsMeasured(time_unix_nano=time, names=tuple(names), moments=moments_of(*rows), health=health, **told)


def form_of(reader: Any) -> Form:
    """Return what a reader of the SDK wants as differences, as the export reader has it from variables."""
    wanted = reader._instrument_class_temporality
    instruments = {Kind.COUNTER: Counter, Kind.UP_DOWN_COUNTER: UpDownCounter, Kind.HISTOGRAM: Histogram}
    delta = AggregationTemporality.DELTA
    kinds = {
        kind
        for kind, instrument in instruments.items()
        if any(issubclass(of, instrument) and temporality == delta for of, temporality in wanted.items())
    }
    return Form(frozenset(kinds | ({Kind.EXPONENTIAL_HISTOGRAM} if Kind.HISTOGRAM in kinds else set())))


class Produced:
    """A store whose metrics are added to what given readers collect."""

    def __init__(self, *readers: Any, gauge_points: int = 1000, most_buckets: int = 160) -> None:
        self.readers = readers
        for reader in readers:
            reader.form = form_of(reader)
        self.meter = MeterProvider(list(readers), resource=RESOURCE, shutdown_on_exit=False)
        self.error_boundary = ErrorBoundary()
        self.gauge_points, self.most_buckets = gauge_points, most_buckets
        self.restart()

    def restart(self) -> None:
        self.store = MetricStore(START, GaugeLog(self.gauge_points))
        self.producer = MetricProducer(
            self.store, nissa_scope(), most_buckets=self.most_buckets, error_boundary=self.error_boundary
        )
        for reader in self.readers:
            self.producer.install(self.meter, reader)

    def data(self, reader: int = 0) -> Any:
        """Collect for a reader."""
        one = self.readers[reader]
        return self.producer.merge(one.get_metrics_data(), one, RESOURCE)

    def collect(self, reader: int = 0, scope: str = "nissa") -> dict[str, Any]:
        return metrics_of(self.data(reader), scope)


def nissa_scope() -> Any:
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415 - used here only

    return InstrumentationScope("nissa", "1.2.3")


def delta_reader() -> InMemoryMetricReader:
    """Return a reader that wants differences of everything."""
    delta = AggregationTemporality.DELTA
    return InMemoryMetricReader(preferred_temporality={Counter: delta, UpDownCounter: delta, Histogram: delta})


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def make_kit() -> type[Kit]:
    return Kit


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture(scope="session")
def make_life() -> type[Life]:
    return Life


@pytest.fixture(scope="session")
def epoch_event() -> Callable[..., TelemetryEvent]:
    return of_epoch


@pytest.fixture(scope="session")
def make_produced() -> type[Produced]:
    return Produced


@pytest.fixture(scope="session")
def make_delta_reader() -> Callable[[], InMemoryMetricReader]:
    return delta_reader


@pytest.fixture(scope="session")
def make_measured() -> Callable[..., GradientsMeasured]:
    return measured


@pytest.fixture(scope="session")
def make_moments() -> Callable[..., Moments]:
    return moments_of
