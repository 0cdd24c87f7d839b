"""OTLP JSON requests: counted, joined, split into what a collector takes, and turned into protobuf."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from nissa.otel.export.export_log import ITEMS
from nissa.otel.otlp.messages import from_json

Request = dict[str, Any]
"""An export request as JSON."""

WHAT: Final = ITEMS
"""What the items of a signal are called."""
_LEVELS: Final = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_POINTS: Final = "dataPoints"


def is_request(signal: str, value: Any) -> bool:
    """Whether a value is an export request of a signal, down to its spans, metric points or log records."""
    levels = _LEVELS[signal]
    nodes = [value]
    for name in levels:
        if not all(isinstance(node, dict) and isinstance(node.get(name, []), list) for node in nodes):
            return False
        nodes = [each for node in nodes for each in node.get(name, [])]
    if levels[0] not in value or not all(isinstance(node, dict) for node in nodes):
        return False
    return signal != "metrics" or all(map(_is_metric, nodes))


def _is_metric(metric: dict[str, Any]) -> bool:
    kinds = [metric[kind] for kind in _KINDS if kind in metric]
    if not all(isinstance(kind, dict) and isinstance(kind.get(_POINTS, []), list) for kind in kinds):
        return False
    return all(isinstance(point, dict) for kind in kinds for point in kind.get(_POINTS, []))


def count(signal: str, request: Request) -> int:
    """Return the number of spans, metric points or log records of a request."""
    nodes: list[Any] = [request]
    for name in _LEVELS[signal]:
        nodes = [each for node in nodes for each in node.get(name, [])]
    if signal != "metrics":
        return len(nodes)
    return sum(len(metric[kind].get(_POINTS, [])) for metric in nodes for kind in _KINDS if kind in metric)


def joined(signal: str, requests: Iterable[Request]) -> Request:
    """Return several requests as one, in their order."""
    name = _LEVELS[signal][0]
    return {name: [each for request in requests for each in request[name]]}


def split(signal: str, request: Request) -> Iterator[Request]:
    """Yield a request in parts of one resource, as its lines have."""
    name = _LEVELS[signal][0]
    yield from ({**request, name: [each]} for each in request[name])


def body(request: Request) -> bytes:
    """Return a request as JSON; a lone surrogate is escaped, as JSON allows and UTF-8 does not."""
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def portions(signal: str, request: Request, most: int) -> Iterator[Request]:
    """Yield a request in parts of at most so many bytes of JSON, in order; an item that is larger goes alone."""
    halves = _halves(request, _LEVELS[signal]) if len(body(request)) > most else []
    if not halves:
        yield request
        return
    for half in halves:
        yield from portions(signal, half, most)


def _halves(node: dict[str, Any], levels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a node with the first and with the second half of the items below it; nothing where there is only one."""
    if not levels:
        return _halves_of_points(node)
    name, *rest = levels
    items = node.get(name, [])
    if len(items) > 1:
        middle = len(items) // 2
        return [{**node, name: items[:middle]}, {**node, name: items[middle:]}]
    return [{**node, name: [half]} for item in items for half in _halves(item, tuple(rest))]


def _halves_of_points(item: dict[str, Any]) -> list[dict[str, Any]]:
    kind = next((kind for kind in _KINDS if kind in item), None)
    if kind is None:  # a span or a log record
        return []
    return [{**item, kind: half} for half in _halves(item[kind], (_POINTS,))]


def message(signal: str, request: Request) -> Any:
    """Return a request as a protobuf message.

    Raises:
        ValueError: It is none.
    """
    try:
        return from_json(signal, request)
    except Exception as error:  # protobuf raises errors of many types for what is no OTLP
        raise ValueError(str(error)) from error


def is_message(signal: str, request: Request) -> bool:
    """Whether a request can be turned into a protobuf message, which `is_request` does not look at closely enough."""
    try:
        message(signal, request)
    except ValueError:
        return False
    return True
