"""Metrics as OTLP JSON lines: what a run's own gauges hold is written by us, all else by the official encoder.

The official encoder makes several objects of each point, and then a dictionary of those. It takes 6 µs for each of thousands
of points that differ in a time and a number, and where all of them are alive at once, the interpreter looks for garbage
among all objects of the process again and again meanwhile, and the training thread waits for that.
"""

import json
from dataclasses import replace
from functools import lru_cache
from itertools import compress, groupby
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
from pydantic_core import to_json

from nissa.otel.metrics.batching import batches, count_points, with_points
from nissa.otel.metrics.gauges import GaugeRow
from nissa.otel.metrics.points import GaugePoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from nissa.otel.metrics.gauges import GaugePoint, GaugeSeries, Row

MOST_POINTS: Final = 100
"""Data points of a line by the official encoder: their objects are too few for a search among all others."""

MOST_OWN_POINTS: Final = 1_000
"""Data points of a line of ours: 150 to 250 kB."""

_NOTHING: Final = b'"gauge":{}'
"""A gauge without points. Within a text, quotes are escaped, so that it stands nowhere else."""

_NEXT: Final = b"},{"
"""End of a point and beginning of the next one."""


class MetricLines:
    """Encoder of metrics as OTLP JSON lines, each a complete request of one metric or of several.

    Args:
        most: Maximum number of points of gauges of ours in a line.
    """

    def __init__(self, most: int = MOST_OWN_POINTS) -> None:
        self._most = most
        # What stands around the points of a gauge, by the resource, the scope and the metric's name.
        self._around: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}

    def lines(self, data: MetricsData) -> "Iterator[tuple[bytes, int]]":
        """Yield the metrics of a collection as lines, with the number of their points."""
        for part in _parts(data, own=False):
            for batch in batches(_metrics(part), MOST_POINTS):
                yield f"{_encoded(_with(part, batch))}\n".encode(), count_points(batch)
        encoder = _PointEncoder(self._most)
        for part in _parts(data, own=True):
            for metric in _metrics(part):
                yield from self._gauge(part, metric, encoder)

    def _gauge(self, part: MetricsData, metric: Metric, encoder: "_PointEncoder") -> "Iterator[tuple[bytes, int]]":
        points = cast("GaugePoints", metric.data.data_points)
        before, after = self._text_around(part, metric)
        for texts, count in _chunks(encoder.points(points.rows), self._most):
            texts[0] = texts[0].removeprefix(_NEXT)
            yield b"".join([before, b'"gauge":{"dataPoints":[{', *texts, b"}]}", after, b"\n"]), count

    def _text_around(self, part: MetricsData, metric: Metric) -> tuple[bytes, bytes]:
        """Return the text before and after the points of a gauge, which is the same for each export."""
        resource = part.resource_metrics[0]
        scope = resource.scope_metrics[0]
        described = metric.name, metric.description, metric.unit
        key = (resource.resource, resource.schema_url, scope.scope, scope.schema_url, described)
        found = self._around.get(key)
        if found is None:
            before, after = _encoded(_with(part, [with_points(metric, [])])).encode().split(_NOTHING)
            found = self._around[key] = before, after
        return found


def _chunks(found: "Iterable[tuple[list[bytes], int]]", most: int) -> "Iterator[tuple[list[bytes], int]]":
    """Yield the parts of consecutive points together, as many as are at most so many points in all."""
    chunk: list[bytes] = []
    total = 0
    for parts, count in found:
        if total + count > most:
            yield chunk, total
            chunk, total = [], 0
        chunk += parts
        total += count
    if chunk:
        yield chunk, total


class _PointEncoder:
    """Encoder of the points of rows: those of a set of streams differ in their times and numbers only.

    Joining the parts of many points takes a third of the time that formatting them takes, because Python's own conversion
    of a float to text is slow.

    Args:
        most: Maximum number of points at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # By the identity of attributes, which live as long as the export.
        self._heads: dict[int, bytes] = {}

    def points(self, rows: "Iterable[Row]") -> "Iterator[tuple[list[bytes], int]]":
        """Yield the parts of some points at a time, with their number. Rows stay whole where they can.

        Each point begins with `_NEXT`.
        """
        for _, group in groupby(rows, key=lambda row: id(row.attributes)):
            members: list[Any] = list(group)
            if isinstance(members[0], GaugeRow):
                heads = [self._head(each) for each in members[0].attributes]
                columns: Callable[..., _Columns] = _columns_of_rows
            else:
                heads, columns = [self._head(members[0].attributes)], _columns_of_streams
            together = max(1, self._most // max(1, len(heads)))
            for start in range(0, len(members), together):
                yield from self._divided(*columns(heads, members[start : start + together]))

    def _divided(
        self, heads: "Sequence[bytes]", times: "Sequence[bytes]", values: "Sequence[float]"
    ) -> "Iterator[tuple[list[bytes], int]]":
        for start in range(0, len(values), self._most):
            part = slice(start, start + self._most)
            numbers = _numbers(values[part])
            yield _parts_of(heads[part], times[part], numbers), len(numbers)

    def _head(self, attributes: "Mapping[str, Any]") -> bytes:
        head = self._heads.get(id(attributes))
        if head is None:
            field = _attributes(tuple((key, type(value), value) for key, value in attributes.items()))
            head = self._heads[id(attributes)] = _NEXT + f'{field}"timeUnixNano":"'.encode()
        return head


_Columns = tuple[list[bytes], list[bytes], list[float]]
"""Heads, times and values of points."""


def _columns_of_rows(heads: list[bytes], rows: "Sequence[GaugeRow]") -> _Columns:
    """Return the columns of rows of the same streams, without what was not measured."""
    heads = heads * len(rows)
    times = [time for row in rows for time in [_time(row.time)] * len(row.values)]
    values = np.concatenate([row.values for row in rows])
    absent = np.isnan(values)
    if absent.any():
        # NaN means "not measured" in an array only; see `GaugeRow`.
        absent &= np.repeat([isinstance(row.values, np.ndarray) for row in rows], [len(row.values) for row in rows])
        measured = (~absent).tolist()
        heads, times, values = [*compress(heads, measured)], [*compress(times, measured)], values[~absent]
    return heads, times, values.tolist()


def _columns_of_streams(heads: list[bytes], rows: "Sequence[GaugePoint | GaugeSeries]") -> _Columns:
    columns = [row.columns() for row in rows]
    times = np.concatenate([times for times, _ in columns]).tolist()
    values = np.concatenate([values for _, values in columns]).tolist()
    return heads * len(values), [*map(_time, times)], values


def _time(nanoseconds: int) -> bytes:
    return b'%d","asDouble":' % nanoseconds


def _numbers(values: "Sequence[float]") -> list[bytes]:
    """Return numbers as JSON, and those that JSON does not have as the protobuf mapping writes them ("NaN")."""
    return to_json(values, inf_nan_mode="strings")[1:-1].split(b",")


def _parts_of(heads: "Sequence[bytes]", times: "Sequence[bytes]", numbers: "Sequence[bytes]") -> list[bytes]:
    """Return points as parts that are joined with those of others only once, since a line is large."""
    parts = [b""] * (3 * len(numbers))
    parts[::3], parts[1::3], parts[2::3] = heads, times, numbers
    return parts


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
