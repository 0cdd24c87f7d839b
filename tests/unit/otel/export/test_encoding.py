"""Requests: the bytes of gauges are those of the official encoder, and an item that cannot be encoded loses only itself."""

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    InMemoryMetricReader,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.otel.export.encoding import MAX_POINTS, MAX_REQUEST_BYTES, Request, metric_requests, span_requests
from nissa.otel.metrics.gauges import GaugePoint, GaugeRow, GaugeSeries
from nissa.otel.metrics.points import GaugePoints

texts = st.text(max_size=12)
attributes = st.dictionaries(
    texts, texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
)
times = st.integers(1, 2**63 - 1)
numbers = st.floats() | st.sampled_from([0.0, -0.0, 5e-324, math.inf, -math.inf, math.nan])


@st.composite
def gauge_rows(draw: st.DrawFn) -> list[GaugeRow | GaugePoint | GaugeSeries]:
    """Draw consecutive rows of one set of streams, a series, or a single point."""
    match draw(st.sampled_from(["rows", "statistics", "series", "point"])):
        case "series":
            series = GaugeSeries(draw(attributes))
            for time in draw(st.lists(times, min_size=1, max_size=5)):
                series.add(time, draw(numbers))
            return [series]
        case "point":
            return [GaugePoint(draw(attributes), draw(times), draw(numbers))]
        case kind:
            streams = draw(st.lists(attributes, max_size=4))
            return [
                GaugeRow(streams, draw(times), np.array(values) if kind == "statistics" else tuple(values))
                for values in draw(
                    st.lists(st.lists(numbers, min_size=len(streams), max_size=len(streams)), max_size=3)
                )
            ]


def gauges(rows: list[Any], *, own: bool) -> MetricsData:
    points = GaugePoints(rows)
    metric = Metric("nissa.loss", "Loss", "", Gauge(points if own else list(points)))
    scope = ScopeMetrics(InstrumentationScope("nissa", "1.0", "http://schema", {"a": 1}), [metric], "http://schema")
    return MetricsData([ResourceMetrics(Resource({"a": "b", "n": 1}), [scope], "http://resource")])


def ignore(items: int, error: Exception) -> None:
    raise AssertionError((items, error))


@given(st.lists(gauge_rows(), max_size=5))
def test_gauges_are_written_as_the_official_encoder_writes_them(drawn: list[list[Any]]) -> None:
    rows = [row for group in drawn for row in group]
    expected = gauges(rows, own=False)
    requests = list(metric_requests(gauges(rows, own=True), ignore))
    if not len(GaugePoints(rows)):
        assert requests == []
        return
    (request,) = requests
    assert request.body == encode_metrics(expected).SerializeToString()
    assert request.items == len(GaugePoints(rows))


def test_attributes_that_are_equal_and_of_other_types_stay_apart() -> None:
    rows = [GaugeRow([{"n": 1}, {"n": True}, {"n": 1.0}], 1, (0.1, 0.2, 0.3))]
    (request,) = metric_requests(gauges(rows, own=True), ignore)
    assert request.body == encode_metrics(gauges(rows, own=False)).SerializeToString()


def test_requests_stay_below_the_limit_and_lose_no_point() -> None:
    streams = [{"nissa.parameter.name": f"layers.{index}.weight"} for index in range(2_000)]
    rows = [GaugeRow(streams, step + 1, np.arange(2_000.0) + step) for step in range(40)]
    requests = list(metric_requests(gauges(rows, own=True), ignore))
    assert len(requests) > 1
    assert all(len(request.body) <= MAX_REQUEST_BYTES for request in requests)
    assert sum(request.items for request in requests) == 80_000
    values = [
        point.as_double
        for request in requests
        for point in parsed_metrics(request).resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    ]
    assert values == [value for row in rows for value in row.values]


def parsed_metrics(request: Request) -> Any:
    return ExportMetricsServiceRequest.FromString(request.body)


def test_many_points_of_an_application_are_several_requests() -> None:
    reader = InMemoryMetricReader()
    gauge = MeterProvider([reader], shutdown_on_exit=False).get_meter("app").create_counter("size")
    for index in range(1_500):
        gauge.add(index, {"n": index})
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    many = MetricsData([ResourceMetrics(Resource({}), [ScopeMetrics(InstrumentationScope("x"), [metric] * 3, "")], "")])
    assert [request.items for request in metric_requests(many, ignore)] == [MAX_POINTS, 1_500]


def spans(*names: str, attribute: object = 1) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for name in names:
        provider.get_tracer("x").start_span(name, attributes={"a": attribute}).end()  # type: ignore[dict-item]
    return list(exporter.get_finished_spans())


def names_in(request: Request) -> list[str]:
    message = ExportTraceServiceRequest.FromString(request.body)
    return [span.name for span in message.resource_spans[0].scope_spans[0].spans]


def test_a_span_that_cannot_be_encoded_loses_only_itself() -> None:
    lost: list[tuple[int, str]] = []
    given = [*spans("a", "b"), *spans("lone \ud800 surrogate"), *spans("c")]
    requests = list(span_requests(given, lambda items, error: lost.append((items, type(error).__name__))))
    assert [name for request in requests for name in names_in(request)] == ["a", "b", "c"]
    assert [items for items, _ in lost] == [1]
    assert sum(request.items for request in requests) == 3


def test_large_spans_are_divided_and_the_largest_goes_alone() -> None:
    given = spans(*map(str, range(8)), attribute="x" * (MAX_REQUEST_BYTES // 3))
    requests = list(span_requests(given, ignore))
    assert [names_in(request) for request in requests] == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"]]
    (alone,) = span_requests(spans("huge", attribute="x" * (MAX_REQUEST_BYTES + 1)), ignore)
    assert alone.items == 1
