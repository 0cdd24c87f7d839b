"""Metrics as OTLP JSON lines: what a run's own gauges hold is written by us, all else by the official encoder.

The official encoder makes several objects of each point, and then a dictionary of those. It takes 6 µs for each of thousands
of points that differ in a time and a number, and where all of them are alive at once, the interpreter looks for garbage
among all objects of the process again and again meanwhile, and the training thread waits for that.
"""

import json
import logging
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, cast

from opentelemetry.exporter.otlp.json.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.json.file.metric_exporter import FileMetricExporter
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.otel.metrics.points import GaugePoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nissa.backends.append_file import LineFile
    from nissa.otel.metrics.gauges import GaugePoint, GaugeRow, GaugeSeries

MOST_POINTS: Final = 100
"""Data points of a line by the official encoder: their objects are too few for a search among all others."""

MOST_OWN_POINTS: Final = 1_000
"""Data points of a line of ours: 150 to 250 kB."""

_NOTHING: Final = '"gauge":{}'
"""A gauge without points. Within a text, quotes are escaped, so that it stands nowhere else."""

_NAMED: Final = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}
"""Numbers that JSON does not have, as the protobuf mapping writes them."""

_logger = logging.getLogger("nissa")


class LineMetricExporter(FileMetricExporter):
    """Writes one export as several lines, each a request that is complete in itself.

    Args:
        file: Where to.
    """

    def __init__(self, file: "LineFile") -> None:
        super().__init__(stream=cast("IO[str]", file))  # which writes, flushes, and asks no more of a stream
        self._file = file

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Write the points; the first line that cannot be written is the last that is tried."""
        if self._file.closed:
            _logger.warning("Metrics came after %s was closed, and are lost.", self._file.path)
            return MetricExportResult.FAILURE
        for batch in batches(_parts(metrics_data, own=False), MOST_POINTS):
            if super().export(batch, timeout_millis, **kwargs) is not MetricExportResult.SUCCESS:
                return MetricExportResult.FAILURE
        try:
            for line in gauge_lines(_parts(metrics_data, own=True), MOST_OWN_POINTS):
                self._file.write(line)
        except OSError:
            _logger.exception("Metrics cannot be written to %s, and are lost.", self._file.path)
            return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS


def batches(parts: "Iterable[MetricsData]", most: int) -> "Iterator[MetricsData]":
    """Yield all points of parts of an export in their order, at most so many at a time.

    Args:
        parts: Each of one scope.
        most: How many, at least one.
    """
    for data in parts:
        for metrics in _filled(_metrics(data), most):
            yield _with(data, metrics)


def gauge_lines(parts: "Iterable[MetricsData]", most: int) -> "Iterator[str]":
    """Yield OTLP JSON of gauges, a line of at most so many points of one metric at a time.

    Args:
        parts: Each of one scope; all metrics are gauges of `GaugePoints`.
        most: How many, at least one.
    """
    known: dict[int, str] = {}
    for data in parts:
        for metric in _metrics(data):
            points = cast("GaugePoints", metric.data.data_points)
            before, after = _encoded(_with(data, [_part(metric, [])])).split(_NOTHING)
            texts = (text for row in points.rows for text in _row(row, known))
            while chunk := ",".join(islice(texts, most)):
                yield f'{before}"gauge":{{"dataPoints":[{chunk}]}}{after}\n'


def _row(row: "GaugeRow | GaugePoint | GaugeSeries", known: dict[int, str]) -> "Iterator[str]":
    """Yield the points of a row; ``known`` is by the identity of attributes, which live as long as the export."""
    for attributes, time, value in row.points():
        text = known.get(id(attributes))
        if text is None:
            text = known[id(attributes)] = _attributes(tuple((key, type(of), of) for key, of in attributes.items()))
        number = repr(value)
        yield f'{{{text}"timeUnixNano":"{time}","asDouble":{_NAMED.get(number, number)}}}'


@lru_cache(maxsize=10_000)
def _attributes(items: "tuple[tuple[str, type, Any], ...]") -> str:
    """Return the field of attributes, as the official encoder writes it, and a comma; nothing where there are none.

    Args:
        items: With their types, since 1, 1.0 and True are equal.
    """
    point = NumberDataPoint({key: value for key, _, value in items}, None, 0, 0.0)  # type: ignore[arg-type]  # gauges have no start
    metric = Metric("", "", "", Gauge([point]))
    scope = ScopeMetrics(InstrumentationScope(""), [metric], "")
    encoded = encode_metrics(MetricsData([ResourceMetrics(Resource({}), [scope], "")]))
    (written,) = encoded.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    found = written.to_dict().get("attributes")
    return f'"attributes":{json.dumps(found, separators=(",", ":"))},' if found else ""


def _encoded(data: MetricsData) -> str:
    return json.dumps(encode_metrics(data).to_dict(), separators=(",", ":"))


def _parts(data: MetricsData, *, own: bool) -> "Iterator[MetricsData]":
    """Yield each scope of an export by itself, with its metrics that are ours to write, or with all others."""
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            metrics = [each for each in scope.metrics if isinstance(each.data.data_points, GaugePoints) == own]
            if metrics:
                yield MetricsData([replace(resource, scope_metrics=[replace(scope, metrics=metrics)])])


def _metrics(data: MetricsData) -> "Sequence[Metric]":
    return data.resource_metrics[0].scope_metrics[0].metrics


def _with(data: MetricsData, metrics: "list[Metric]") -> MetricsData:
    """Return a part with other metrics."""
    resource = data.resource_metrics[0]
    return MetricsData([replace(resource, scope_metrics=[replace(resource.scope_metrics[0], metrics=metrics)])])


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


def _part(metric: Metric, points: "list[Any]") -> Metric:
    data: Any = metric.data  # of whichever kind it is, the points are of the same
    return replace(metric, data=replace(data, data_points=points))
