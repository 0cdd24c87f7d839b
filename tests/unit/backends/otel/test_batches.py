"""Exports in small batches."""

from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

from nissa.backends.otel import files
from nissa.backends.otel.batches import MOST_POINTS, batches
from tests.support import points


def data(**streams: int) -> MetricsData:
    """Return the export of a gauge of so many streams for each name."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource({"service.name": "x"}), shutdown_on_exit=False)
    for name, count in streams.items():
        gauge = provider.get_meter(name[0]).create_gauge(name)
        for index in range(count):
            gauge.set(index, {"n": index})
    found = reader.get_metrics_data()
    assert found is not None
    return found


def told(found: MetricsData) -> list[tuple[object, str, str, object]]:
    return [
        (resource.resource, scope.scope.name, metric.name, point)
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


def test_batches_hold_every_point_once_in_order() -> None:
    whole = data(a1=7, a2=1, a3=9, b1=3)
    parts = [told(batch) for batch in batches(whole, 4)]
    assert [each for part in parts for each in part] == told(whole)
    assert [len(part) for part in parts] == [4, 4, 4, 4, 1, 3]


def test_what_fits_is_one_batch() -> None:
    whole = data(a1=2, a2=2)
    assert [told(batch) for batch in batches(whole, 4)] == [told(whole)]


def test_a_large_export_is_several_lines(tmp_path: Path) -> None:
    built = files.build(tmp_path, "", Resource.create({}), 3600.0)
    gauge = built.meter.get_meter("app").create_gauge("size")
    for index in range(2 * MOST_POINTS + 1):
        gauge.set(index, {"n": index})
    built.meter.force_flush()
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert sorted(point.value for point in points(tmp_path, "size")) == list(range(2 * MOST_POINTS + 1))
    built.meter.shutdown()
