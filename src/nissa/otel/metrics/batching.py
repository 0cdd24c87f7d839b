"""Division of metrics into batches of a limited number of points."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics.export import Metric


def batches(metrics: Sequence[Metric], most: int) -> Iterator[list[Metric]]:
    """Yield metrics in their order, divided so that each batch has at most ``most`` (1 or more) points."""
    batch: list[Metric] = []
    room = most
    for metric in metrics:
        points = list(metric.data.data_points)
        while points:
            batch.append(with_points(metric, points[:room]))
            points, room = points[room:], max(0, room - len(points))
            if not room:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def with_points(metric: Metric, points: Sequence[Any]) -> Metric:
    """Return a metric with other points."""
    data: Any = metric.data  # of whichever kind it is, the points are of the same
    return replace(metric, data=replace(data, data_points=points))


def count_points(metrics: Sequence[Metric]) -> int:
    """Return the number of points of metrics."""
    return sum(len(metric.data.data_points) for metric in metrics)
