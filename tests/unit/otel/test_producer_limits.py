"""Bounds of a request, and exemplars that are not wanted."""

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.events import SpanIds
from nissa.hub.error_boundary import ErrorBoundary
from nissa.otel.export.encoding import MAX_POINTS
from nissa.otel.export.metric_reader import EXEMPLARS, ExportReader
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.store import MetricStore, Sample
from nissa.semconv import metrics as metric
from tests.unit.otel.conftest import RESOURCE, metrics_of, nissa_scope


def test_the_largest_points_are_below_what_a_collector_takes() -> None:
    name = "model.decoder.layers.31.self_attn.q_proj.weight" * 3
    point = ExponentialHistogramDataPoint(
        attributes={"nissa.parameter.name": name, "nissa.env.id": "env-10", "nissa.model.name": "generator"},
        start_time_unix_nano=2**60,
        time_unix_nano=2**60,
        count=2**50,
        sum=1.0,
        scale=3,
        zero_count=2**50,
        positive=Buckets(-100, [2**34] * 160),
        negative=Buckets(0, []),
        flags=0,
        min=0.0,
        max=1.0,
        exemplars=[Exemplar({}, 1.0, 2**60, 2**63, 2**127)],
    )
    data = ExponentialHistogram([point] * MAX_POINTS, AggregationTemporality.CUMULATIVE)
    scope = ScopeMetrics(InstrumentationScope("nissa"), [Metric("m", "", "", data)], "")
    message = encode_metrics(MetricsData([ResourceMetrics(Resource({}), [scope], "")]))
    assert 3 * 2**20 < message.ByteSize() < 4 * 2**20


@pytest.mark.parametrize(("chosen", "found"), [("", [1]), ("trace_based", [1]), (" Always_Off ", [])])
def test_exemplars_are_left_out_where_the_variable_turns_them_off(chosen: str, found: list[int]) -> None:
    store, reader = MetricStore(0, GaugeLog(10)), ExportReader(RESOURCE, {EXEMPLARS: chosen})
    producer = MetricProducer(store, nissa_scope(), most_buckets=160, error_boundary=ErrorBoundary())
    producer.install(None, reader)
    store.observe(metric.STEP_DURATION, {}, 0.25, sample=Sample(0.25, 0, SpanIds(1, 2)))
    (point,) = metrics_of(producer.merge(None, reader, RESOURCE))["nissa.step.duration"].data.data_points
    assert [each.trace_id for each in point.exemplars] == found
    assert point.count == 1
