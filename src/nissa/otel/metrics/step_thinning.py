"""Selection of the gauge points of every n-th step, for files that approach their bound."""

from dataclasses import replace
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics.export import Metric, MetricsData

from nissa.otel.metrics.batching import with_points
from nissa.otel.metrics.gauges import GaugeSeries
from nissa.otel.metrics.points import GaugePoints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nissa.otel.metrics.gauges import Row


class StepThinning:
    """Numbers the sampled steps of a run by the time of their points, so that all metrics keep the same steps."""

    def __init__(self) -> None:
        self._seen = 0

    def thin(self, data: MetricsData, every: int) -> MetricsData:
        """Return metrics with the gauge points of every n-th step, and all other points.

        Args:
            data: Metrics of one collection.
            every: Distance of the steps to keep, 1 or more.
        """
        times = sorted({row.time for row in _rows(data) if not isinstance(row, GaugeSeries)})
        chosen = {time for number, time in enumerate(times, self._seen) if number % every == 0}
        self._seen += len(times)
        if every == 1:
            return data
        return MetricsData(
            [
                replace(
                    resource,
                    scope_metrics=[
                        replace(scope, metrics=[_thinned(metric, chosen, every) for metric in scope.metrics])
                        for scope in resource.scope_metrics
                    ],
                )
                for resource in data.resource_metrics
            ]
        )


def _rows(data: MetricsData) -> "Iterator[Row]":
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if isinstance(metric.data.data_points, GaugePoints):
                    yield from metric.data.data_points.rows


def _thinned(metric: Metric, chosen: set[int], every: int) -> Metric:
    points = metric.data.data_points
    if not isinstance(points, GaugePoints):
        return metric
    rows = [_series(row, every) if isinstance(row, GaugeSeries) else row for row in points.rows]
    kept = GaugePoints([row for row in rows if isinstance(row, GaugeSeries) or row.time in chosen])
    return with_points(metric, kept)


def _series(series: GaugeSeries, every: int) -> GaugeSeries:
    """Return every n-th point, and always the newest, which readers show as the current value."""
    return replace(series, times=series.times[::every], values=series.values[::every], newest=_newest(series, every))


def _newest(series: GaugeSeries, every: int) -> tuple[int, float] | None:
    if series.newest is not None or not len(series.times) or (len(series.times) - 1) % every == 0:
        return series.newest
    return series.times[-1], series.values[-1]
