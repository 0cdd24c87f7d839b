"""Values of OTLP JSON: 64-bit integers are strings, and so are the numbers that JSON does not know."""

from collections.abc import Mapping
from typing import Any


def plain(value: Mapping[str, Any]) -> Any:
    """Return an attribute's value; None where it is empty or of a kind that we do not know."""
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
    """Return the attributes of a resource, span, record or point."""
    return {each["key"]: plain(each.get("value", {})) for each in holder.get("attributes", ())}


def number(point: Mapping[str, Any]) -> float | None:
    """Return the value of a point of a gauge or sum; None where it has none."""
    if "asDouble" in point:
        return float(point["asDouble"])
    return float(int(point["asInt"])) if "asInt" in point else None


def nanoseconds(holder: Mapping[str, Any], name: str) -> int:
    """Return a time; 0 where it was not told."""
    return int(holder.get(name, 0))
