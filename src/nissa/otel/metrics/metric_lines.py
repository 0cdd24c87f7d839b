"""Metrics as OTLP JSON lines: what a run's own gauges hold is written by us, all else by the official encoder.

The official encoder makes several objects of each point, and then a dictionary of those. It takes 6 µs for each of thousands
of points that differ in a time and a number, and where all of them are alive at once, the interpreter looks for garbage
among all objects of the process again and again meanwhile, and the training thread waits for that.
"""

import json
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.exporter.otlp.json.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.otel.metrics.batching import batches, count_points, with_points
from nissa.otel.metrics.points import GaugePoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nissa.otel.metrics.gauges import GaugePoint, GaugeRow, GaugeSeries

MOST_POINTS: Final = 100
"""Data points of a line by the official encoder: their objects are too few for a search among all others."""

MOST_OWN_POINTS: Final = 1_000
"""Data points of a line of ours: 150 to 250 kB."""

_NOTHING: Final = '"gauge":{}'
"""A gauge without points. Within a text, quotes are escaped, so that it stands nowhere else."""

_NAMED: Final = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}
"""Numbers that JSON does not have, as the protobuf mapping writes them."""


def metric_lines(data: MetricsData) -> "Iterator[tuple[str, int]]":
    """Yield the metrics of a collection as lines, each a complete request, with the number of their points."""
    for part in _parts(data, own=False):
        for batch in batches(_metrics(part), MOST_POINTS):
            yield _encoded(_with(part, batch)) + "\n", count_points(batch)
    yield from gauge_lines(_parts(data, own=True), MOST_OWN_POINTS)


def gauge_lines(parts: "Iterable[MetricsData]", most: int) -> "Iterator[tuple[str, int]]":
    """Yield OTLP JSON of gauges, a line of at most so many points of one metric at a time, and the number of points.

    Args:
        parts: Each of one scope; all metrics are gauges of `GaugePoints`.
        most: How many, at least one.
    """
    known: dict[int, str] = {}
    for data in parts:
        for metric in _metrics(data):
            points = cast("GaugePoints", metric.data.data_points)
            before, after = _encoded(_with(data, [with_points(metric, [])])).split(_NOTHING)
            texts = (text for row in points.rows for text in _row(row, known))
            while chunk := list(islice(texts, most)):
                yield f'{before}"gauge":{{"dataPoints":[{",".join(chunk)}]}}{after}\n', len(chunk)


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
