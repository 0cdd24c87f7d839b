"""What a provider that we join is asked to do: to split what is too much, and to leave out what nobody wants."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Exemplar, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.events import SpanIds
from nissa.otel.metrics.producer import MOST_POINTS
from nissa.otel.metrics.store import Sample
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from tests.unit.otel.conftest import Produced

Make = Callable[..., "Produced"]


@pytest.mark.parametrize("exporter", [GrpcExporter, HttpExporter], ids=["grpc", "http"])
def test_an_exporter_that_does_not_split_does_so_while_we_are_there(make_produced: Make, exporter: Any) -> None:
    plain, told = exporter(), exporter(max_export_batch_size=17)
    readers = [PeriodicExportingMetricReader(each, export_interval_millis=3_600_000) for each in (plain, told)]
    here = make_produced(*readers)
    late = exporter()
    here.meter.add_metric_reader(PeriodicExportingMetricReader(late, export_interval_millis=3_600_000))
    for reader in here.meter._measurement_consumer._reader_storages:
        here.meter._measurement_consumer.collect(reader)
    limits = [each._max_export_batch_size for each in (plain, told, late)]
    assert limits == [MOST_POINTS, 17, MOST_POINTS]
    here.producer.uninstall()
    assert [each._max_export_batch_size for each in (plain, told, late)] == [None, 17, None]


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
    data = ExponentialHistogram([point] * MOST_POINTS, AggregationTemporality.CUMULATIVE)
    scope = ScopeMetrics(InstrumentationScope("nissa"), [Metric("m", "", "", data)], "")
    message = encode_metrics(MetricsData([ResourceMetrics(Resource({}), [scope], "")]))
    assert 3 * 2**20 < message.ByteSize() < 4 * 2**20


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "unwanted"])
def test_exemplars_are_left_out_where_nobody_wants_any(make_produced: Make, wanted: bool) -> None:
    here = make_produced(InMemoryMetricReader())
    if not wanted:
        here.producer.uninstall()
        reader = InMemoryMetricReader()
        here.readers = (reader,)
        here.meter = MeterProvider([reader], exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)
        here.restart()
    sample = Sample(0.25, here.store.start, SpanIds(1, 2))
    here.store.observe(metric.STEP_DURATION, {}, 0.25, sample=sample)
    (point,) = here.collect()["nissa.step.duration"].data.data_points
    assert [each.trace_id for each in point.exemplars] == ([1] if wanted else [])
    assert point.count == 1
