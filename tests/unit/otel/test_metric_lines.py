"""Metrics as lines: ours are what the official encoder writes, and no point is lost between two of them."""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    InMemoryMetricReader,
    Metric,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.otel.metrics.batching import batches
from nissa.otel.metrics.gauges import GaugeRow
from nissa.otel.metrics.metric_lines import MOST_OWN_POINTS, MOST_POINTS, MetricLines
from nissa.otel.metrics.points import GaugePoints

START = 1_700_000_000_000_000_000
TRAP = 'of "gauge":{} and \\"gauge\\":{}, dataPoints'

texts = st.text(max_size=12) | st.just(TRAP)
attributes = st.dictionaries(texts, texts | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9))
numbers = st.floats() | st.sampled_from([0.0, -0.0, 5e-324, 1e16, 1e22, math.inf, -math.inf, math.nan])


def app(**streams: int) -> MetricsData:
    """Return the export of an application that has a gauge of so many streams for each name."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource({"service.name": "x"}), shutdown_on_exit=False)
    for name, count in streams.items():
        gauge = provider.get_meter(name[0]).create_gauge(name)
        for index in range(count):
            gauge.set(index, {"n": index})
    found = reader.get_metrics_data()
    assert found is not None
    return found


def ours(rows: list[GaugeRow], *, own: bool = True, name: str = "nissa.loss", description: str = TRAP) -> MetricsData:
    """Return the export of one gauge, of points that are ours to write or of ordinary ones."""
    found = GaugePoints(rows)
    metric = Metric(name, description, "1", Gauge(found if own else list(found)))
    scope = ScopeMetrics(InstrumentationScope("nissa", "1.0", "schema"), [metric], "schema")
    return MetricsData([ResourceMetrics(Resource({"a": TRAP, "b": 1}), [scope], "schema")])


def by_scope(found: MetricsData) -> Iterator[MetricsData]:
    for resource in found.resource_metrics:
        for scope in resource.scope_metrics:
            yield MetricsData([ResourceMetrics(resource.resource, [scope], resource.schema_url)])


def metrics_of(found: MetricsData) -> list[Metric]:
    return list(found.resource_metrics[0].scope_metrics[0].metrics)


def around(found: MetricsData, metrics: list[Metric]) -> MetricsData:
    """Return the same resource and scope with other metrics."""
    (resource,) = found.resource_metrics
    return MetricsData([replace(resource, scope_metrics=[replace(resource.scope_metrics[0], metrics=metrics)])])


def told(found: MetricsData) -> list[tuple[object, str, str, object]]:
    return [
        (resource.resource, scope.scope.name, metric.name, point)
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


def strictly(line: str | bytes) -> Any:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    return json.loads(line, parse_constant=refuse)


def officially(found: MetricsData) -> Any:
    stream = io.StringIO()
    assert FileMetricExporter(stream=stream).export(found) is MetricExportResult.SUCCESS
    return strictly(stream.getvalue())


def taken_apart(lines: list[Any]) -> list[tuple[str, Any]]:
    """Each point, with all that stands around it as text."""
    found = []
    for line in lines:
        (resource,) = line["resourceMetrics"]
        (scope,) = resource["scopeMetrics"]
        (metric,) = scope["metrics"]
        told = metric["gauge"].pop("dataPoints")
        found += [(json.dumps(line), point) for point in told]
    return found


def test_batches_hold_every_point_once_in_order() -> None:
    (whole,) = by_scope(app(a1=7, a2=1, a3=9))
    parts = [told(around(whole, batch)) for batch in batches(metrics_of(whole), 4)]
    assert [each for part in parts for each in part] == told(whole)
    assert [len(part) for part in parts] == [4, 4, 4, 4, 1]


def test_what_fits_is_one_batch() -> None:
    (whole,) = by_scope(app(a1=2, a2=2))
    assert [told(around(whole, batch)) for batch in batches(metrics_of(whole), 4)] == [told(whole)]


def test_a_large_export_of_an_application_is_several_lines() -> None:
    lines = list(MetricLines().lines(app(a1=2 * MOST_POINTS + 1)))
    assert [items for _, items in lines] == [MOST_POINTS, MOST_POINTS, 1]
    values = [int(point["asInt"]) for _, point in taken_apart([strictly(line) for line, _ in lines])]
    assert values == list(range(2 * MOST_POINTS + 1))


@given(rows=st.lists(st.tuples(st.lists(st.tuples(attributes, numbers), max_size=4), st.integers(1, 2**63 - 1))))
def test_lines_of_gauges_say_what_the_official_encoder_says(
    rows: list[tuple[list[tuple[dict[str, Any], float]], int]],
) -> None:
    made = [GaugeRow([each for each, _ in row], time, tuple(value for _, value in row)) for row, time in rows]
    found = [strictly(line) for line, _ in MetricLines(3).lines(ours(made))]
    expected = officially(ours(made, own=False))
    expected = taken_apart([expected]) if made and any(row for row, _ in rows) else []
    assert taken_apart(found) == expected


def test_attributes_that_are_equal_and_of_other_types_stay_apart() -> None:
    rows = [GaugeRow([{"n": 1}, {"n": True}, {"n": 1.0}], START, (0.1, 0.2, 0.3))]
    ((line, _),) = MetricLines(10).lines(ours(rows))
    assert taken_apart([strictly(line)]) == taken_apart([officially(ours(rows, own=False))])


def test_a_statistic_that_is_absent_has_no_point() -> None:
    rows = [GaugeRow([{"n": "1"}, {"n": "2"}], START, np.array([math.nan, 2.0]))]
    ((line, _),) = MetricLines(10).lines(ours(rows))
    ((_, point),) = taken_apart([strictly(line)])
    assert point["asDouble"] == 2.0


def test_points_of_ours_are_lines_of_a_bounded_length() -> None:
    streams = [{"n": str(index)} for index in range(700)]
    rows = [GaugeRow(streams, START + step, np.arange(700.0)) for step in range(5)]
    lines = list(MetricLines().lines(ours(rows)))
    assert [items for _, items in lines] == [700] * 5  # rows stay whole where they can
    points = [point for _, point in taken_apart([strictly(line) for line, _ in lines])]
    seen = [(int(point["timeUnixNano"]), point["asDouble"]) for point in points]
    assert seen == [(row.time, value) for row in rows for value in row.values]


def test_long_rows_are_divided_and_short_ones_joined() -> None:
    streams = [{"n": str(index)} for index in range(2 * MOST_OWN_POINTS + 5)]
    rows = [GaugeRow(streams, START, np.arange(float(len(streams))))]
    rows += [GaugeRow(streams[:4], START + step, np.arange(4.0)) for step in range(1, 4)]
    lines = list(MetricLines().lines(ours(rows)))
    assert [items for _, items in lines] == [MOST_OWN_POINTS, MOST_OWN_POINTS, 5 + 3 * 4]
    points = [point for _, point in taken_apart([strictly(line) for line, _ in lines])]
    seen = [(int(point["timeUnixNano"]), point["asDouble"]) for point in points]
    assert seen == [(row.time, value) for row in rows for value in row.values]


def test_an_export_holds_what_is_ours_and_all_else() -> None:
    both = MetricsData([*app(a1=2, b1=1).resource_metrics, *ours([GaugeRow([{}], START, (0.5,))]).resource_metrics])
    values = [
        (json.loads(around)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["name"], point)
        for around, point in taken_apart([strictly(line) for line, _ in MetricLines().lines(both)])
    ]
    assert [(name, point.get("asDouble", point.get("asInt"))) for name, point in values] == [
        *[("a1", "0"), ("a1", "1"), ("b1", "0")],
        ("nissa.loss", 0.5),
    ]
