"""Asking Prometheus and Jaeger what arrived."""

import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from scripts.stack import Stack


def fetch(address: str, **parameters: str | float) -> Any:
    """Return the JSON at an address."""
    with urlopen(f"{address}?{urlencode(parameters)}", timeout=10) as answer:  # noqa: S310 - a loopback address
        return json.load(answer)


def samples(stack: Stack, expression: str, **parameters: str | float) -> list[Any]:
    """Return what a PromQL expression evaluates to."""
    result = fetch(f"{stack.prometheus}/api/v1/query", query=expression, **parameters)["data"]["result"]
    assert isinstance(result, list)
    return result


def value(stack: Stack, expression: str, **parameters: str | float) -> float | None:
    """Return the one number that a PromQL expression evaluates to, or None."""
    found = samples(stack, expression, **parameters)
    return float(found[0]["value"][1]) if found else None


def spans(stack: Stack, service: str) -> dict[str, Any]:
    """Return a service's spans by name, as Jaeger has them."""
    traces = fetch(f"{stack.jaeger}/api/traces", service=service, limit=100)["data"] or []
    return {span["operationName"]: span for trace in traces for span in trace["spans"]}


def tags(span: Any) -> dict[str, Any]:
    """Return the attributes of a span that Jaeger returned."""
    return {tag["key"]: tag["value"] for tag in span["tags"]}
