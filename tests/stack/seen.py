"""What the servers have of a service, in the terms of the matrix."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nissa.recordings.values import attributes
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus
from nissa.semconv import spans as names
from nissa.semconv.metrics import Kind
from scripts.stack import Stack
from tests.stack.matrix import Place, Row
from tests.stack.queries import fetch

Thing = tuple[str, str, str]
"""What it is, its name, and an attribute on it or nothing."""

_OURS = ("nissa.", "dl.")


def things(row: Row) -> Iterator[Thing]:
    """Yield what a row demands: the thing itself, and each of its attributes on it."""
    yield row.what, row.name, ""
    yield from ((row.what, row.name, key) for key in row.attributes.split())


def seen(stack: Stack, place: Place, service: str) -> set[Thing]:
    """Return what of a service is in a place."""
    look = {Place.PROMETHEUS: _in_prometheus, Place.JAEGER: _in_jaeger, Place.LINES: _in_lines}[place]
    return {thing for what, name, keys in look(stack, service) for thing in things(Row(what, name, " ".join(keys)))}


def series(spec: metrics.MetricSpec) -> str:
    """Return the series by which a metric is found; an explicit histogram is a family of them."""
    return prometheus.series(spec) + ("_count" if spec.kind is Kind.HISTOGRAM else "")


def _in_prometheus(stack: Stack, service: str) -> Iterator[tuple[str, str, Iterable[str]]]:
    selector = {"match[]": f'{{job="{service}", __name__=~"nissa_.*|process_memory_.*"}}'}
    keys = {prometheus.label(key): key for name, key in vars(attr).items() if name.isupper()}
    known = {series(spec): spec.name for spec in metrics.ALL}
    known |= dict.fromkeys(
        (f"{prometheus.series(spec)}_{part}" for spec in metrics.ALL for part in ("sum", "bucket")), ""
    )
    for labels in fetch(f"{stack.prometheus}/api/v1/series", **selector)["data"]:
        ours = {keys.get(label, label) for label in labels if label.startswith(("nissa_", "dl_"))}
        yield "resource", "", ours & _RESOURCE
        if name := known.get(labels["__name__"], labels["__name__"]):
            yield "metric", name, ours - _RESOURCE


_RESOURCE = {attr.RUN_ID, attr.PROFILE, attr.RANK, attr.LOCAL_RANK, attr.WORLD_SIZE}
"""What distinguishes labels that were promoted from those of a point: on a point none of these occurs."""


def _in_jaeger(stack: Stack, service: str) -> Iterator[tuple[str, str, Iterable[str]]]:
    for trace in fetch(f"{stack.jaeger}/api/traces", service=service, limit=1000)["data"] or []:
        for process in trace["processes"].values():
            yield "resource", "", _ours(tag["key"] for tag in process["tags"])
        for span in trace["spans"]:
            yield "span", span["operationName"], _ours(tag["key"] for tag in span["tags"])
            for log in span["logs"]:
                fields = {field["key"]: field["value"] for field in log["fields"]}
                yield "span event", fields["event"], _ours(fields)


def _in_lines(stack: Stack, service: str) -> Iterator[tuple[str, str, Iterable[str]]]:
    for line in (stack.folder / "collector" / "logs.jsonl").read_text().splitlines():
        for resource in json.loads(line)["resourceLogs"] if service in line else ():
            of_resource = attributes(resource["resource"])
            if of_resource["service.name"] == service:
                yield "resource", "", _ours(of_resource)
                yield from (
                    (*_kind(record), _ours(attributes(record)))
                    for scope in resource["scopeLogs"]
                    for record in scope["logRecords"]
                )


def _kind(record: Mapping[str, Any]) -> tuple[str, str]:
    name = record.get("eventName", "")
    return "event" if name else "log record", name


def _ours(keys: Iterable[str]) -> list[str]:
    """Return the attributes that we declare or should; the details of an event have names of its own making.

    Which packages are installed, and whether there is a repository with a branch, depends on the machine.
    """
    declared = {value for name, value in vars(attr).items() if name.isupper()} - {attr.VCS_REVISION, attr.VCS_REFERENCE}
    others = (names.EVENT_PREFIX, f"{attr.PACKAGE}.")
    return [key for key in keys if key in declared or (key.startswith(_OURS) and not key.startswith(others))]
