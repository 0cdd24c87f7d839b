"""Metrics as OTLP JSON lines: what a run's own gauges hold is written by us, all else by the official encoder.

The official encoder makes several objects of each point, and then a dictionary of those. It takes 6 µs for each of thousands
of points that differ in a time and a number, and where all of them are alive at once, the interpreter looks for garbage
among all objects of the process again and again meanwhile, and the training thread waits for that.
"""

import json
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
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
from nissa.otel.metrics.gauges import GaugeRow
from nissa.otel.metrics.points import GaugePoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nissa.otel.metrics.gauges import GaugePoint, GaugeSeries

MOST_POINTS: Final = 100
"""Data points of a line by the official encoder: their objects are too few for a search among all others."""

MOST_OWN_POINTS: Final = 1_000
"""Data points of a line of ours: 150 to 250 kB."""

_NOTHING: Final = '"gauge":{}'
"""A gauge without points. Within a text, quotes are escaped, so that it stands nowhere else."""

_TIME: Final = "\0"
"""Place of the time in a template; JSON text contains no such character."""

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
    encoder = _PointEncoder(most)
    for data in parts:
        for metric in _metrics(data):
            points = cast("GaugePoints", metric.data.data_points)
            before, after = _encoded(_with(data, [with_points(metric, [])])).split(_NOTHING)
            for texts, count in _chunks((text for row in points.rows for text in encoder.texts(row)), most):
                yield f'{before}"gauge":{{"dataPoints":[{",".join(texts)}]}}{after}\n', count


def _chunks(texts: "Iterable[tuple[str, int]]", most: int) -> "Iterator[tuple[list[str], int]]":
    """Yield consecutive texts together, as many as have at most so many points in all."""
    chunk: list[str] = []
    total = 0
    for text, count in texts:
        if total + count > most:
            yield chunk, total
            chunk, total = [], 0
        chunk.append(text)
        total += count
    if chunk:
        yield chunk, total


class _PointEncoder:
    """Encoder of the points of rows, from templates: the points of a set of streams differ in their numbers only.

    Formatting a whole row at once takes 0.4 µs per point, and one point after the other five times that.

    Args:
        most: Maximum number of points in a text.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # By the identity of attributes, which live as long as the export.
        self._fields: dict[int, str] = {}
        self._templates: dict[tuple[int, int], str] = {}

    def texts(self, row: "GaugeRow | GaugePoint | GaugeSeries") -> "Iterator[tuple[str, int]]":
        """Yield the points of a row as text, separated by commas, with their number."""
        if isinstance(row, GaugeRow) and np.isfinite(row.values).all():
            yield from self._at_once(row)
            return
        for attributes, time, value in row.points():
            number = repr(value)
            yield f'{{{self._field(attributes)}"timeUnixNano":"{time}","asDouble":{_NAMED.get(number, number)}}}', 1

    def _at_once(self, row: GaugeRow) -> "Iterator[tuple[str, int]]":
        values = row.values.tolist() if isinstance(row.values, np.ndarray) else [float(value) for value in row.values]
        for start in range(0, len(values), self._most):
            part = tuple(values[start : start + self._most])
            yield self._template(row, start).replace(_TIME, str(row.time)) % part, len(part)

    def _template(self, row: GaugeRow, start: int) -> str:
        key = id(row.attributes), start
        if key not in self._templates:
            fields = (self._field(each).replace("%", "%%") for each in row.attributes[start : start + self._most])
            self._templates[key] = ",".join(f'{{{each}"timeUnixNano":"{_TIME}","asDouble":%r}}' for each in fields)
        return self._templates[key]

    def _field(self, attributes: "Mapping[str, Any]") -> str:
        text = self._fields.get(id(attributes))
        if text is None:
            text = self._fields[id(attributes)] = _attributes(
                tuple((key, type(value), value) for key, value in attributes.items())
            )
        return text


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
