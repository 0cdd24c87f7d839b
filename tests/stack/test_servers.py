"""What is sent to the collector arrives, under the names that dashboards ask for."""

import json
import time
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests.stack.queries import fetch, samples, spans, tags, value
from tests.stack.sending import meter, resource, tracer
from tests.support import until

DAY = 24 * 3600


@pytest.fixture
def service() -> str:
    """Return a name that no other test uses."""
    return f"test-{uuid4().hex[:12]}"


def test_every_server_is_healthy(stack: Stack) -> None:
    assert stack.healthy()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_span_arrives_in_jaeger_with_its_attributes(stack: Stack, service: str, protocol: str) -> None:
    with tracer(stack, service, protocol) as traced, traced.start_as_current_span(names.SEED) as span:
        span.set_attribute(attr.SEED_ID, "seed-1")
    (found,) = until(lambda: spans(stack, service), "the span").values()
    assert found["spanID"] == format(span.get_span_context().span_id, "016x")
    assert tags(found)[attr.SEED_ID] == "seed-1"


def test_a_pending_span_is_shown_but_not_counted(stack: Stack, service: str) -> None:
    pending = names.SEED + names.STARTED_SUFFIX
    with tracer(stack, service) as traced:
        traced.start_span(pending, attributes={attr.SPAN_PENDING: True}).end()
        traced.start_span(names.SEED, attributes={attr.BLUEPRINT_ID: "conv", attr.SEED_OUTCOME: "culled"}).end()
    until(lambda: {pending, names.SEED} <= spans(stack, service).keys(), "both spans in Jaeger")
    counted = f'traces_span_metrics_calls_total{{service_name="{service}"}}'
    (sample,) = until(lambda: samples(stack, counted), "the ended span's count")
    labels = sample["metric"]
    assert labels["span_name"] == names.SEED
    assert labels[prometheus.label(attr.BLUEPRINT_ID)] == "conv"
    assert labels[prometheus.label(attr.SEED_OUTCOME)] == "culled"
    assert labels[prometheus.label(attr.RUN_ID)] == f"{service}-run"


def test_span_durations_are_a_native_histogram_that_leads_to_the_trace(stack: Stack, service: str) -> None:
    with tracer(stack, service) as traced, traced.start_as_current_span(names.VALIDATION) as span:
        time.sleep(0.05)
    name = f'traces_span_metrics_duration_seconds{{service_name="{service}"}}'
    found = until(lambda: value(stack, f"histogram_quantile(0.5, {name})"), "the median")
    assert 0.04 < found < 0.5
    trace_id = format(span.get_span_context().trace_id, "032x")
    assert until(lambda: _exemplars(stack, name), "an exemplar")[0]["labels"]["trace_id"] == trace_id


def test_a_gauge_carries_the_run_and_the_rank_as_labels(stack: Stack, service: str) -> None:
    with meter(stack, service) as metered:
        metered.create_gauge(metrics.LOSS.name, metrics.LOSS.unit).set(0.25, {attr.PHASE: "train"})
    name = f'{prometheus.series(metrics.LOSS)}{{job="{service}"}}'
    (sample,) = until(lambda: samples(stack, name), "the gauge")
    assert float(sample["value"][1]) == 0.25
    expected = {
        "service_name": service,
        "service_instance_id": f"{service}-3",
        "instance": f"{service}-3",
        "nissa_run_id": f"{service}-run",
        "nissa_profile": "standard",
        "dl_rank": "3",
        "dl_local_rank": "1",
        "dl_world_size": "4",
        "nissa_phase": "train",
    }
    assert expected.items() <= sample["metric"].items()


def test_an_exponential_histogram_becomes_a_native_one_with_exemplars(stack: Stack, service: str) -> None:
    values = [1e-4 * 1.01**index for index in range(1000)]
    spec = metrics.GRADIENT_MAGNITUDE
    with meter(stack, service) as metered, tracer(stack, service) as traced, traced.start_as_current_span(names.STEP):
        histogram = metered.create_histogram(spec.name, spec.unit)
        for each in values:
            histogram.record(each, {attr.PARAMETER_NAME: "fc.weight"})
    name = f'{prometheus.series(spec)}{{job="{service}"}}'
    median = until(lambda: value(stack, f"histogram_quantile(0.5, {name})"), "the median")
    assert median == pytest.approx(values[500], rel=0.1)
    assert value(stack, f"histogram_count({name})") == 1000
    assert until(lambda: _exemplars(stack, name), "an exemplar")


def test_a_counter_has_the_derived_name(stack: Stack, service: str) -> None:
    with meter(stack, service) as metered:
        metered.create_counter(metrics.HUB_EVENTS.name, metrics.HUB_EVENTS.unit).add(3)
    events = f'{prometheus.series(metrics.HUB_EVENTS)}{{job="{service}"}}'
    assert until(lambda: value(stack, events), "the counter") == 3


def test_old_samples_of_another_process_are_taken(stack: Stack, service: str) -> None:
    now = time.time()
    _export_gauge(stack, service, [(now, 1.0)])
    name = f'{prometheus.series(metrics.LOSS)}{{job="{service}"}}'
    until(lambda: value(stack, name) == 1, "the newest sample")
    _export_gauge(stack, service, [(now - 7 * DAY, 7.0), (now - 7 * DAY + 0.1, 8.0)])
    assert until(lambda: value(stack, name, time=now - 7 * DAY), "the old sample") == 7
    assert value(stack, name, time=now - 7 * DAY + 0.1) == 8


def test_the_collector_reports_on_itself(stack: Stack, service: str) -> None:
    with tracer(stack, service) as traced:
        traced.start_span(names.SEED).end()
    name = 'otelcol_receiver_accepted_spans_total{job="otelcol"}'
    assert until(lambda: value(stack, name), "the collector's own metrics")


def test_events_are_kept_as_lines_that_can_be_replayed(stack: Stack, service: str) -> None:
    if stack.docker:
        pytest.skip("the lines are in a volume of the container")
    provider = LoggerProvider(resource=resource(service))
    provider.add_log_record_processor(
        SimpleLogRecordProcessor(OTLPLogExporter(endpoint=stack.otlp_grpc, insecure=True))
    )
    provider.get_logger("tests").emit(event_name=names.EVENT_NARRATIVE, body="All is well.")
    provider.shutdown()
    path = stack.folder / "collector" / "logs.jsonl"
    found = until(lambda: [line for line in path.read_text().splitlines() if service in line], "the line")
    (record,) = json.loads(found[0])["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["eventName"] == names.EVENT_NARRATIVE


def _exemplars(stack: Stack, series: str) -> list[Any]:
    end = time.time()
    answer = fetch(f"{stack.prometheus}/api/v1/query_exemplars", query=series, start=end - 300, end=end + 60)
    return [exemplar for each in answer["data"] for exemplar in each["exemplars"]]


def _export_gauge(stack: Stack, service: str, points: list[tuple[float, float]]) -> None:
    data = Gauge([NumberDataPoint({}, 0, int(at * 1e9), number) for at, number in points])
    metric = Metric(metrics.LOSS.name, metrics.LOSS.description, metrics.LOSS.unit, data)
    scope = ScopeMetrics(InstrumentationScope("tests"), [metric], "")
    exporter = OTLPMetricExporter(endpoint=stack.otlp_grpc, insecure=True)
    sent = exporter.export(MetricsData([ResourceMetrics(resource(service), [scope], "")]))
    exporter.shutdown()
    assert sent is MetricExportResult.SUCCESS
