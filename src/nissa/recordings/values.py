"""Decode OTLP JSON values; 64-bit integers, NaN and infinities are encoded as strings."""

from collections.abc import Mapping
from typing import Any


def plain(value: Mapping[str, Any]) -> Any:
    """Decode an attribute value; return None if it is empty or of an unknown kind."""
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "doubleValue":
            return float(content)
        if kind in {"stringValue", "boolValue", "bytesValue"}:
            return content
        if kind == "arrayValue":
            return [plain(each) for each in content.get("values", [])]
        if kind == "kvlistValue":
            return {each["key"]: plain(each["value"]) for each in content.get("values", [])}
    return None


def attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the attributes of a resource, span, log record or data point."""
    return {each["key"]: plain(each.get("value", {})) for each in holder.get("attributes", ())}


def number(point: Mapping[str, Any]) -> float | None:
    """Decode the value of a gauge or sum point; return None if it has none."""
    if "asDouble" in point:
        return float(point["asDouble"])
    return float(int(point["asInt"])) if "asInt" in point else None


def nanoseconds(holder: Mapping[str, Any], name: str) -> int:
    """Decode a time; return 0 if the field is missing."""
    return int(holder.get(name, 0))
