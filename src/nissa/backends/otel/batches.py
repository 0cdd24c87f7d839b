"""Exports in small batches, since the garbage of a large one costs more than its encoding.

Encoding makes several objects of each point. Where all of an export are alive at once, the interpreter looks for garbage
among all objects of the process again and again meanwhile, and the training thread waits for that.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics, ScopeMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.metrics.export import Metric

MOST_POINTS: Final = 100
"""Data points of a line: their objects are too few for the interpreter to look among all others."""


class BatchedFileMetricExporter(FileMetricExporter):
    """Writes one export as several lines, each complete in itself."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Write the points; the first line that cannot be written is the last that is tried."""
        for batch in batches(metrics_data, MOST_POINTS):
            if super().export(batch, timeout_millis, **kwargs) is not MetricExportResult.SUCCESS:
                return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS


def batches(data: MetricsData, most: int) -> "Iterator[MetricsData]":
    """Yield all points of an export in their order, at most so many at a time."""
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metrics in _filled(scope.metrics, most):
                yield MetricsData([_resource(resource, scope, metrics)])


def _filled(metrics: "Sequence[Metric]", most: int) -> "Iterator[list[Metric]]":
    batch: list[Metric] = []
    room = most
    for metric in metrics:
        points = list(metric.data.data_points)
        while points:
            batch.append(_part(metric, points[:room]))
            points, room = points[room:], max(0, room - len(points))
            if not room:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def _part(metric: "Metric", points: "list[Any]") -> "Metric":
    data: Any = metric.data  # of whichever kind it is, the points are of the same
    return replace(metric, data=replace(data, data_points=points))


def _resource(resource: ResourceMetrics, scope: ScopeMetrics, metrics: "list[Metric]") -> ResourceMetrics:
    return replace(resource, scope_metrics=[replace(scope, metrics=metrics)])
