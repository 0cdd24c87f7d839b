"""What arrives on the wire: JSON lines and protobuf, parsed back and compared with the truth."""

import io
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData

from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from nissa.hub.measurements import GradientsMeasured
    from nissa.kernels.moments import Moments
    from tests.unit.otel.conftest import Kit

START = 1_700_000_000_000_000_000


@pytest.fixture
def truth() -> "np.ndarray[Any, np.dtype[np.float64]]":
    values = np.random.default_rng(3).standard_normal((5, 400)) * 10.0 ** np.arange(-4, 4).repeat(50)
    values[:, ::40] = 0.0
    values[0, 1], values[3, 2] = math.nan, math.inf
    return values


def as_json(data: MetricsData | None) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    assert data is not None
    stream = io.StringIO()
    FileMetricExporter(stream=stream).export(data)
    parsed = json.loads(stream.getvalue(), parse_constant=refuse)
    (resource,) = parsed["resourceMetrics"]
    (scope,) = resource["scopeMetrics"]
    return {each["name"]: each for each in scope["metrics"]}


def as_protobuf(data: MetricsData | None) -> dict[str, Any]:
    assert data is not None
    (resource,) = encode_metrics(data).resource_metrics
    (scope,) = resource.scope_metrics
    return {each.name: each for each in scope.metrics}


@pytest.fixture
def exported(
    kit: "Kit", truth: "np.ndarray[Any, Any]", make_measured: Callable[..., "GradientsMeasured"]
) -> MetricsData | None:
    for step, row in enumerate(truth):
        kit.backend.record(make_measured(["w"], row, at=step + 1))
    kit.backend.store.gauge(metric.LOSS, {"nissa.phase": "train"}, START, math.nan)
    kit.backend.store.gauge(metric.LOSS, {"nissa.phase": "validation"}, START, math.inf)
    kit.backend.store.observe(metric.STEP_DURATION, {}, 0.25)
    return kit.reader.take()


def test_magnitudes_survive_the_json_file(exported: MetricsData, truth: "np.ndarray[Any, Any]") -> None:
    (point,) = as_json(exported)["nissa.gradient.magnitude"]["exponentialHistogram"]["dataPoints"]
    finite = np.abs(truth[np.isfinite(truth)])
    buckets = [int(count) for count in point["positive"]["bucketCounts"]]
    assert int(point["count"]) == len(finite) == int(point["zeroCount"]) + sum(buckets)
    assert int(point["zeroCount"]) == 50
    assert len(buckets) <= 160
    assert point["sum"] == pytest.approx(finite.sum(), rel=1e-12)
    assert point["max"] == finite.max()
    assert "min" not in point


def test_magnitudes_survive_protobuf(exported: MetricsData, truth: "np.ndarray[Any, Any]") -> None:
    (point,) = as_protobuf(exported)["nissa.gradient.magnitude"].exponential_histogram.data_points
    finite = np.abs(truth[np.isfinite(truth)])
    assert point.count == len(finite) == point.zero_count + sum(point.positive.bucket_counts)
    assert point.sum == pytest.approx(finite.sum(), rel=1e-12)
    assert not point.HasField("min")
    assert not point.negative.bucket_counts
    bound = 2.0 ** ((point.positive.offset + len(point.positive.bucket_counts)) * 2.0**-point.scale)
    assert finite.max() <= bound * (1 + 1e-12)


def test_nonfinite_elements_survive(exported: MetricsData) -> None:
    (point,) = as_json(exported)["nissa.gradient.nonfinite"]["sum"]["dataPoints"]
    assert int(point["asInt"]) == 2
    (encoded,) = as_protobuf(exported)["nissa.gradient.nonfinite"].sum.data_points
    assert encoded.as_int == 2


def test_a_loss_of_nan_or_infinity_is_text_in_strict_json(exported: MetricsData) -> None:
    points = as_json(exported)["nissa.loss"]["gauge"]["dataPoints"]
    assert [point["asDouble"] for point in points] == ["NaN", "Infinity"]
    encoded = as_protobuf(exported)["nissa.loss"].gauge.data_points
    assert math.isnan(encoded[0].as_double)
    assert encoded[1].as_double == math.inf


def test_gauges_keep_a_point_per_step_with_its_time(
    exported: MetricsData, truth: "np.ndarray[Any, Any]", make_moments: Callable[..., "Moments"]
) -> None:
    points = as_json(exported)["nissa.gradient.norm"]["gauge"]["dataPoints"]
    assert [int(point["timeUnixNano"]) for point in points] == [START + step * 10**9 for step in range(1, 6)]
    norms = [float(make_moments(row).norm[0]) for row in truth]
    assert [point["asDouble"] for point in points] == pytest.approx(norms)
    assert all("startTimeUnixNano" not in point or point["startTimeUnixNano"] in {0, "0"} for point in points)


def test_an_explicit_histogram_survives(exported: MetricsData) -> None:
    (point,) = as_json(exported)["nissa.step.duration"]["histogram"]["dataPoints"]
    assert [int(count) for count in point["bucketCounts"]].index(1) == metric.STEP_DURATION.bounds.index(0.25)
    assert (point["min"], point["max"], point["sum"]) == (0.25, 0.25, 0.25)


def test_differences_survive_without_extremes(
    make_produced: Callable[..., Any], make_delta_reader: Callable[[], InMemoryMetricReader]
) -> None:
    here = make_produced(make_delta_reader())
    here.store.observe(metric.STEP_DURATION, {}, 0.25)
    data = here.data()
    (point,) = as_json(data)["nissa.step.duration"]["histogram"]["dataPoints"]
    assert "min" not in point
    assert "max" not in point
    (encoded,) = as_protobuf(data)["nissa.step.duration"].histogram.data_points
    assert not encoded.HasField("min")
