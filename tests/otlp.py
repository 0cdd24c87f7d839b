"""OTLP JSON lines as exporters write them, made by hand."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Attributes = Mapping[str, Any]


def value(given: Any) -> dict[str, Any]:
    if isinstance(given, bool):
        return {"boolValue": given}
    if isinstance(given, int):
        return {"intValue": str(given)}
    if isinstance(given, float):
        return {"doubleValue": given}
    if isinstance(given, list):
        return {"arrayValue": {"values": [value(each) for each in given]}}
    return {"stringValue": given}


def attributes(given: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(each)} for key, each in given.items()]


def _resource(given: Attributes) -> dict[str, Any]:
    return {"attributes": attributes({"service.name": "svc", "nissa.run.id": "r", **given})}


def gauge(metric: str, points: Iterable[tuple[int, Any]], told: Attributes = {}) -> dict[str, Any]:  # noqa: B006
    found = [{"attributes": attributes(told), "timeUnixNano": str(time), "asDouble": each} for time, each in points]
    return {"name": metric, "gauge": {"dataPoints": found}}


def exponential(
    metric: str,
    points: Iterable[tuple[int, int, int, list[int]]],
    told: Attributes = {},
    *,
    temporality: int = 2,
) -> dict[str, Any]:
    """Each point is time, scale, offset, counts; all count from time 1."""
    found = [
        {
            "attributes": attributes(told),
            "startTimeUnixNano": "1",
            "timeUnixNano": str(time),
            "count": str(sum(counts) + 3),
            "scale": scale,
            "zeroCount": "3",
            "positive": {"offset": offset, "bucketCounts": [str(count) for count in counts]},
        }
        for time, scale, offset, counts in points
    ]
    return {"name": metric, "exponentialHistogram": {"dataPoints": found, "aggregationTemporality": temporality}}


def metrics(*given: dict[str, Any], resource: Attributes = {}) -> str:  # noqa: B006
    scope = {"scope": {"name": "nissa"}, "metrics": list(given)}
    return json.dumps({"resourceMetrics": [{"resource": _resource(resource), "scopeMetrics": [scope]}]})


def span(
    name: str, start: int, end: int, told: Attributes, *, trace: str, own: str, parent: str = "", **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "traceId": trace,
        "spanId": own,
        "parentSpanId": parent,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(end),
        "attributes": attributes(told),
        "status": {},
        **more,
    }


def spans(*given: dict[str, Any], resource: Attributes = {}) -> str:  # noqa: B006
    scope = {"scope": {"name": "nissa"}, "spans": list(given)}
    return json.dumps({"resourceSpans": [{"resource": _resource(resource), "scopeSpans": [scope]}]})


def record(
    name: str,
    time: int,
    told: Attributes = {},
    *,
    body: str = "",
    severity: int = 9,
    trace: str = "",
) -> dict[str, Any]:
    return {
        "eventName": name,
        "timeUnixNano": str(time),
        "severityNumber": severity,
        "body": value(body) if body else {},
        "attributes": attributes(told),
        "traceId": trace,
    }


def logs(*given: dict[str, Any], resource: Attributes = {}) -> str:  # noqa: B006
    scope = {"scope": {"name": "nissa"}, "logRecords": list(given)}
    return json.dumps({"resourceLogs": [{"resource": _resource(resource), "scopeLogs": [scope]}]})


def write(folder: Path, **files: Iterable[str]) -> Path:
    """Write lines to ``<name>.jsonl`` each, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder
