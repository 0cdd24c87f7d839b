"""Asking Prometheus and Jaeger what arrived."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from scripts.stack import Stack

T = TypeVar("T")


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


def settled(look: Callable[[], T], wanted: T, timeout: float = 120) -> T:
    """Look until what is wanted is there, and return what was seen last, for an assertion that shows the difference."""
    deadline = monotonic() + timeout
    while (found := look()) != wanted and monotonic() < deadline:
        sleep(0.05)
    return found


def spans(stack: Stack, service: str) -> dict[str, Any]:
    """Return a service's spans by name, as Jaeger has them."""
    traces = fetch(f"{stack.jaeger}/api/traces", service=service, limit=100)["data"] or []
    return {span["operationName"]: span for trace in traces for span in trace["spans"]}


def trace(stack: Stack, trace_id: str) -> list[Any]:
    """Return the spans of one trace, in the order of their beginning; none where Jaeger does not know it."""
    try:
        found = fetch(f"{stack.jaeger}/api/traces/{trace_id}")["data"]
    except HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return []
    return sorted((span for each in found for span in each["spans"]), key=lambda span: (span["startTime"], ended(span)))


def tags(span: Any) -> dict[str, Any]:
    """Return the attributes of a span that Jaeger returned."""
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def ended(span: Any) -> int:
    """Return when a span ended, in microseconds since the Unix epoch."""
    end: int = span["startTime"] + span["duration"]
    return end


def parent(span: Any) -> str | None:
    """Return the id of a span's parent, None for a root."""
    found = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
    return found[0] if found else None


def links(span: Any) -> list[tuple[str, str]]:
    """Return the trace and span ids that a span links to."""
    return [(each["traceID"], each["spanID"]) for each in span["references"] if each["refType"] == "FOLLOWS_FROM"]


def noted(span: Any, name: str) -> list[dict[str, Any]]:
    """Return the attributes of a span's events of a name, in their order."""
    logs = sorted(span["logs"], key=lambda log: log["timestamp"])
    events = [{field["key"]: field["value"] for field in log["fields"]} for log in logs]
    return [event for event in events if event["event"] == name]


@dataclass(frozen=True, slots=True)
class Past:
    """Prometheus, asked about a moment: what it says of now lacks each series that had no sample for five minutes.

    Args:
        stack: The servers.
        moment: Seconds since the Unix epoch.
    """

    stack: Stack
    moment: float

    def samples(self, expression: str) -> list[Any]:
        """Return what a PromQL expression evaluated to then."""
        return samples(self.stack, expression, time=self.moment)

    def value(self, expression: str) -> float | None:
        """Return the one number that a PromQL expression evaluated to then, or None."""
        return value(self.stack, expression, time=self.moment)

    def exemplars(self, series: str, seconds: float = 900) -> list[Any]:
        """Return the exemplars that a series got in so many seconds before, each with the labels of its series."""
        asked: dict[str, str | float] = {"query": series, "start": self.moment - seconds, "end": self.moment}
        found = fetch(f"{self.stack.prometheus}/api/v1/query_exemplars", **asked)["data"]
        return [{**exemplar, "series": each["seriesLabels"]} for each in found for exemplar in each["exemplars"]]
