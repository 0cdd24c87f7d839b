"""Decoder of spools: the frames of a folder as OTLP JSON values, as if they had been written as lines.

Only this module of the reader knows OpenTelemetry, whose protobuf classes decode the frames. It is imported only for a
folder that contains a spool.
"""

import zlib
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # it has no types of its own
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # the same
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nissa.journal import DamagedFrame, Frame, frames
from nissa.printable import printable_name
from nissa.recordings.jsonl_reader import DamagedLine, JsonLine, decompressed

_REQUESTS: Final[Mapping[str, Any]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
_IDS: Final = ("trace_id", "span_id", "parent_span_id")
_JSON_NAMES: Final = {"trace_id": "traceId", "span_id": "spanId", "parent_span_id": "parentSpanId"}
_NUMBERS: Final = ("gauge", "sum")
_NONFINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""Numbers that JSON does not have."""


def spool_lines(folder: Path, damaged: list[DamagedLine]) -> Iterator[JsonLine]:
    """Yield the export requests of a spool, delivered or not; one segment is in memory at a time.

    Args:
        folder: Folder of the spool. A process may still write to it.
        damaged: Receives the frames that cannot be read; their number is that of their first byte, from 1.
    """
    broken: list[DamagedFrame] = []
    for frame in frames(folder, broken):
        damaged += map(_damaged, broken)
        broken.clear()
        line = DamagedLine(_name(folder, frame), frame.position.header.offset + 1)
        try:
            value = decoded(frame)
        except (ValueError, zlib.error, DecodeError):
            damaged.append(line)
        else:
            yield JsonLine(line.file, line.number, frame.payload, value)
    damaged += map(_damaged, broken)


def decoded(frame: Frame) -> dict[str, Any]:
    """Return the request of a frame as OTLP JSON: ids are hexadecimal.

    Raises:
        ValueError: The payload is larger than a line may be, or is incomplete.
        zlib.error: It is not compressed with gzip.
        DecodeError: It is no request.
    """
    request = _REQUESTS[frame.signal].FromString(decompressed(frame.payload))
    if frame.signal == "metrics":
        return {"resourceMetrics": [_metrics(each) for each in request.resource_metrics]}
    value = _to_json(request)
    resources = request.resource_spans if frame.signal == "traces" else request.resource_logs
    for message, node in zip(resources, value.get(_resources(frame), ()), strict=True):
        _set_ids(message, node, traces=frame.signal == "traces")
    return value


def _to_json(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(message, use_integers_for_enums=True)  # as OTLP's JSON has them
    return found


def _resources(frame: Frame) -> str:
    return "resourceSpans" if frame.signal == "traces" else "resourceLogs"


def _set_ids(resource: Any, node: dict[str, Any], *, traces: bool) -> None:
    """Replace the ids of a resource's spans or log records, which protobuf's JSON has in base64."""
    scopes = (resource.scope_spans, "scopeSpans") if traces else (resource.scope_logs, "scopeLogs")
    for scope, scope_node in zip(scopes[0], node.get(scopes[1], ()), strict=True):
        items = (scope.spans, "spans") if traces else (scope.log_records, "logRecords")
        for item, item_node in zip(items[0], scope_node.get(items[1], ()), strict=True):
            _set_ids_of(item, item_node)
            for link, link_node in zip(item.links if traces else (), item_node.get("links", ()), strict=True):
                _set_ids_of(link, link_node)


def _set_ids_of(item: Any, node: dict[str, Any]) -> None:
    for field in _IDS:
        if content := getattr(item, field, b""):
            node[_JSON_NAMES[field]] = content.hex()


def _metrics(resource: Any) -> dict[str, Any]:
    return {
        "resource": _to_json(resource.resource),
        "scopeMetrics": [
            {"scope": _to_json(scope.scope), "metrics": [_metric(each) for each in scope.metrics]}
            for scope in resource.scope_metrics
        ],
    }


def _metric(metric: Any) -> dict[str, Any]:
    """Return a metric; points that are plain numbers are decoded by hand, which takes a third of the time."""
    kind = metric.WhichOneof("data")
    if kind not in _NUMBERS:
        return _to_json(metric)
    points = [_point(each) for each in getattr(metric, kind).data_points]
    return {"name": metric.name, "unit": metric.unit, kind: {"dataPoints": points}}


def _point(point: Any) -> dict[str, Any]:
    node: dict[str, Any] = {
        "attributes": [_attribute(each) for each in point.attributes],
        "timeUnixNano": point.time_unix_nano,
    }
    kind = point.WhichOneof("value")
    if kind == "as_int":
        node["asInt"] = point.as_int
    elif kind == "as_double":
        value = point.as_double
        node["asDouble"] = value if isfinite(value) else _NONFINITE[str(value)]
    return node


def _attribute(attribute: Any) -> dict[str, Any]:
    value = attribute.value
    if value.WhichOneof("value") == "string_value":  # nearly all
        return {"key": attribute.key, "value": {"stringValue": value.string_value}}
    return {"key": attribute.key, "value": _to_json(value)}


def _name(folder: Path, frame: Frame) -> str:
    return printable_name(f"{folder.name}/{frame.signal}-{frame.kind}-{frame.position.segment:06}.spool")


def _damaged(frame: DamagedFrame) -> DamagedLine:
    name = printable_name(frame.file)
    if frame.reason:
        return DamagedLine(name, 0, reason=f"it cannot be read: {frame.reason}")
    return DamagedLine(name, frame.offset + 1, cut=frame.cut)
