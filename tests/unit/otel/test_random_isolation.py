"""Python's global generator: neither does telemetry draw from it, nor does seeding it make ids repeat."""

import random
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from nissa.events import SpanIds
from nissa.otel.random_isolation import isolate
from nissa.otel.traces.spans import PresetIds

HTTP = "opentelemetry.exporter.otlp.common.http"
GRPC = "opentelemetry.exporter.otlp.proto.grpc.exporter"


@pytest.fixture(autouse=True)
def isolated() -> Iterator[None]:
    """Seeded before, and exactly as it was left afterwards."""
    isolate()
    before = random.getstate()
    random.seed(42)
    state = random.getstate()
    yield
    assert random.getstate() == state
    random.setstate(before)


def test_every_place_of_the_sdk_is_changed() -> None:
    assert isolate() == [
        "opentelemetry.sdk.trace.id_generator.random",
        "opentelemetry.sdk.metrics._internal.exemplar.exemplar_reservoir.randrange",
        f"{HTTP}.random",
        f"{GRPC}.random",
    ]


def test_a_place_that_an_sdk_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    places = (("opentelemetry.not_there", "random"), ("opentelemetry.sdk.trace.id_generator", "not_there"))
    monkeypatch.setattr("nissa.otel.random_isolation._PLACES", places)
    monkeypatch.setattr("nissa.otel.random_isolation._EXPORTERS", places)
    assert isolate() == []


def test_the_modules_of_exporters_are_imported_only_where_one_may_be_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, GRPC)
    assert f"{GRPC}.random" not in isolate(exporters=False)
    assert GRPC not in sys.modules
    assert f"{GRPC}.random" in isolate()
    assert f"{GRPC}.random" in isolate(exporters=False)  # one that is there already, as an application's own


def test_spans_leave_the_generator_alone() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("app")
    for _ in range(200):
        tracer.start_span("step").end()


def test_measurements_within_sampled_spans_leave_the_generator_alone() -> None:
    views = [View(instrument_name="wide", aggregation=ExponentialBucketHistogramAggregation())]
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], views=views, shutdown_on_exit=False).get_meter("app")
    gauge, counter = meter.create_gauge("gauge"), meter.create_counter("counter")
    wide, explicit = meter.create_histogram("wide"), meter.create_histogram("explicit")
    with TracerProvider(shutdown_on_exit=False).get_tracer("app").start_as_current_span("step"):
        for number in range(100):
            gauge.set(number)
            counter.add(1)
            wide.record(number + 1)
            explicit.record(number)
    assert reader.get_metrics_data() is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: HttpExporter(endpoint="http://127.0.0.1:9/v1/traces", timeout=0.3),
        lambda: GrpcExporter(endpoint="127.0.0.1:9", insecure=True, timeout=1),
    ],
    ids=["http", "grpc"],
)
def test_an_export_that_is_tried_again_leaves_the_generator_alone(make: Callable[[], SpanExporter]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    span = provider.get_tracer("app").start_span("step")
    span.end()
    exporter = make()
    assert exporter.export([span]) is SpanExportResult.FAILURE  # type: ignore[list-item]
    exporter.shutdown()


def test_retry_delays_vary() -> None:
    client: Any = object.__new__(import_module(HTTP)._OTLPHTTPClient)
    client._jitter = 0.2
    delays = {client._compute_backoff(retry) for retry in range(6) for _ in range(5)}
    assert len(delays) > 6
    assert all(0.8 <= delay <= 32 * 1.2 for delay in delays)


def test_ids_are_unique_when_the_generator_is_seeded_before_each() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("app")
    contexts = []
    for _ in range(50):
        random.seed(42)
        contexts.append(tracer.start_span("step").get_span_context())
    assert len({context.trace_id for context in contexts}) == 50
    assert len({context.span_id for context in contexts}) == 50
    random.seed(42)


def test_ids_of_our_own_spans_are_unique_too() -> None:
    ids = PresetIds()
    drawn = []
    for _ in range(50):
        random.seed(42)
        drawn.append((ids.generate_trace_id(), ids.generate_span_id()))
    assert len(set(drawn)) == 50
    assert all(0 < trace < 2**128 and 0 < span < 2**64 for trace, span in drawn)
    random.seed(42)


def test_an_id_that_was_decided_is_given_once() -> None:
    ids = PresetIds()
    ids.next = SpanIds(5, 6)
    assert (ids.generate_trace_id(), ids.generate_span_id()) == (5, 6)
    assert ids.generate_span_id() != 6
    assert ids.is_trace_id_random()
