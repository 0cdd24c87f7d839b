"""The telemetry of runs as text that is the same wherever they ran, sorted, for people to compare.

What differs from one execution to the next is replaced or left out, and nothing else; the lists below name all of it:

- Trace and span ids become labels made of a span's name, attributes and start.
- Times are seconds since the program's clock began. The time at which a sum or a histogram was collected is left out.
- The values of `MASKED_METRICS` and of `MASKED_ATTRIBUTES` depend on the machine.
- Points of one stream are joined over exports, and what an export repeats is left out. Of `FINAL_METRICS` only the last
  value counts, since they also count what had not arrived at the export before.
- Spans, records and events are sorted by time, since findings of the reader's thread arrive at any moment.
- Floats have six significant digits, on which kernels and processors agree; those of `ROUGH_METRICS` have four.
- Descriptions of metrics are prose, which ``docs/reference/metrics.md`` has.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Final

from nissa.semconv.metrics import EVENT_METRICS
from tests.seeded.program import BEGIN

RUNS: Final = ("first", "second")
EXPECTED: Final = Path(__file__).parent / "expected"
"""What the runs exported when this was committed."""

FILES: Final = ("traces", "metrics", "logs", "objects")

MASKED_METRICS: Final = frozenset({"nissa.overhead.ratio", "nissa.readback.lag"})
"""Values that depend on the speed of the machine; their times are the program's."""

PRESENT_METRICS: Final = frozenset(
    {
        "nissa.hub.queue.size",
        "nissa.journal.size",
        "nissa.export.items",
        "nissa.step.phase.duration",
        "process.memory.usage",
    }
)
"""Values and times depend on the machine, or on when an export happens; only that the streams exist is compared."""

ROUGH_METRICS: Final = frozenset({"nissa.sharpness", "nissa.stability_margin"})
"""Found by a search that ends within a tolerance; four digits are the same on every processor."""

FINAL_METRICS: Final = frozenset({"nissa.hub.events", *(spec.name for spec in EVENT_METRICS)})
"""Counts of which only the last is the same each time; some are exported as soon as an event changes them."""

MASKED_ATTRIBUTES: Final = frozenset(
    {"service.instance.id", "telemetry.sdk.version", "process.pid", "process.owner", "host.name", "host.id"}
)
"""Attributes whose values name the process, the machine or an installed version."""

_LABELLED: Final = {
    "nissa.env.id": "env",
    "nissa.epoch": "epoch",
    "nissa.step": "step",
    "nissa.seed.id": "seed",
    "nissa.seed.attempt": "attempt",
    "nissa.gate.name": "gate",
    "nissa.red_flag.name": "flag",
}
"""Attributes that a span's label consists of."""

_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram")
_ID: Final = re.compile(r"\b(?:[0-9a-f]{32}|[0-9a-f]{16})\b")
_WIDTH: Final = 118


def canonical(folder: Path) -> dict[str, str]:
    """Return what `tests.seeded.program` left in a folder as text, by kind."""
    runs = {name: folder / "nissa-runs" / name for name in RUNS}
    labels = Labels({name: list(_items(path / "traces.jsonl", "Spans", "spans")) for name, path in runs.items()})
    return {
        "traces": "".join(_traces(name, labels) for name in RUNS),
        "metrics": "".join(_metrics(name, runs[name] / "metrics.jsonl", labels) for name in RUNS),
        "logs": "".join(_logs(name, runs[name] / "logs.jsonl", labels) for name in RUNS),
        "objects": _objects(folder, labels),
    }


class Labels:
    """Labels of spans that do not depend on their ids.

    Args:
        runs: The spans of each run as they were exported.
    """

    def __init__(self, runs: Mapping[str, list["Item"]]) -> None:
        self.runs = runs
        self._of: dict[str, str] = {}
        self._traces: dict[str, str] = {}
        seen: Counter[str] = Counter()
        for run, items in runs.items():
            for item in sorted(items, key=self._order):
                label = f"{run}/{self._text(item.body)}"
                seen[label] += 1
                number = f"#{seen[label]}" if seen[label] > 1 else ""
                self._of[item.body["spanId"]] = label + number
                self._traces[item.body["spanId"]] = item.body["traceId"]
                self._of.setdefault(item.body["traceId"], f"trace of {label}{number}")

    def _order(self, item: "Item") -> tuple[int, str, list[str]]:
        # By attributes too: findings of two models at one time arrive in any order.
        return _start(item.body), self._text(item.body), _rendered(attributes_of(item.body))

    def of(self, identity: str | None) -> str:
        """Return the label of a span or trace."""
        if not identity:
            return "none"
        return self._of.get(identity, "<not exported>")

    def trace(self, span: str | None) -> str | None:
        """Return the id of a span's trace."""
        return self._traces.get(span or "")

    def within(self, text: str) -> str:
        """Return text with the ids in it labelled; an id of anything else says nothing."""
        return _ID.sub(lambda found: self._of.get(found[0], "<id>"), text)

    @staticmethod
    def _text(span: Mapping[str, Any]) -> str:
        attributes = attributes_of(span)
        told = [f"{short}={attributes[key]}" for key, short in _LABELLED.items() if key in attributes]
        return f"{span['name']}({', '.join(told)})@{seconds(span['startTimeUnixNano'])}"


@dataclass(frozen=True)
class Item:
    """A span, record or metric, with what it was exported under."""

    origin: str
    body: dict[str, Any]


def _items(path: Path, kind: str, name: str) -> Iterator[Item]:
    for line in path.read_text().splitlines():
        for resource in json.loads(line)[f"resource{kind}"]:
            for scope in resource[f"scope{kind}"]:
                about = attributes_of(resource["resource"])
                version = bool(scope["scope"].get("version"))
                origin = [*_rendered(about), f"scope {scope['scope']['name']}, with a version: {version}"]
                for body in scope[name]:
                    yield Item("\n".join(origin), body)


def _head(run: str, items: list[Item]) -> str:
    """Return what all items of a run share; one that differs shows."""
    origins = Counter(item.origin for item in items)
    return f"# run {run}\n" + "".join(f"{text}\n" for text in sorted(origins)) + "\n"


def _traces(run: str, labels: Labels) -> str:
    items = labels.runs[run]
    blocks = sorted((_start(item.body), _span(item.body, labels)) for item in items)
    return _head(run, items) + "".join(f"{text}\n" for _, text in blocks)


def _span(span: dict[str, Any], labels: Labels) -> str:
    lines = [labels.of(span["spanId"]), f"  ends {seconds(span['endTimeUnixNano'])}, kind {span.get('kind')}"]
    parent = span.get("parentSpanId")
    lines += [f"  parent: {labels.of(parent)}"] if parent else []
    lines += [f"  trace: {labels.of(span['traceId'])}"] if labels.trace(parent) != span["traceId"] else []
    lines += [f"  link: {labels.of(each['spanId'])}" for each in span.get("links", [])]
    lines += [f"  status: {span['status']}"] if span.get("status") else []
    lines += [f"  {line}" for line in _rendered(attributes_of(span))]
    for event in span.get("events", []):
        lines.append(f"  event {event['name']} at {seconds(event['timeUnixNano'])}")
        lines += [f"    {line}" for line in _rendered(attributes_of(event))]
    return "\n".join(lines) + "\n"


def _logs(run: str, path: Path, labels: Labels) -> str:
    items = list(_items(path, "Logs", "logRecords"))
    blocks = sorted((int(item.body["timeUnixNano"]), _record(item.body, labels)) for item in items)
    return _head(run, items) + "".join(f"{text}\n" for _, text in blocks)


def _record(record: dict[str, Any], labels: Labels) -> str:
    lines = [f"{record.get('eventName')} at {seconds(record['timeUnixNano'])}"]
    if record.get("observedTimeUnixNano") != record["timeUnixNano"]:
        lines.append(f"  observed {seconds(record['observedTimeUnixNano'])}")
    lines.append(f"  severity {record.get('severityNumber')} {record.get('severityText')}")
    lines += [f"  in {labels.of(record['spanId'])}"] if record.get("spanId") else []
    lines += [f"  trace: {labels.of(record['traceId'])}"] if record.get("traceId") and not record.get("spanId") else []
    lines += [f"  body: {labels.within(str(value_of(record['body'])))}"] if record.get("body") else []
    lines += [f"  {labels.within(line)}" for line in _rendered(attributes_of(record))]
    return "\n".join(lines) + "\n"


def _metrics(run: str, path: Path, labels: Labels) -> str:
    items = list(_items(path, "Metrics", "metrics"))
    streams: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        (kind,) = (each for each in _KINDS if each in item.body)
        data = item.body[kind]
        more = [f"{key}={value}" for key, value in sorted(data.items()) if key != "dataPoints"]
        for point in data["dataPoints"]:
            about = ", ".join(_rendered(attributes_of(point)))
            start = point.get("startTimeUnixNano")
            begun = [] if start is None else [f"start={seconds(start)}"]
            head = " | ".join([item.body["name"], kind, item.body.get("unit", ""), *more, *begun, about])
            streams.setdefault(head, []).append(point)
    blocks = [f"{head}\n{_points(head, points, labels)}" for head, points in sorted(streams.items())]
    return _head(run, items) + "".join(blocks)


def _points(head: str, points: list[dict[str, Any]], labels: Labels) -> str:
    metric, kind = head.split(" | ")[:2]
    if metric in PRESENT_METRICS:
        return ""
    if kind == "gauge":
        masked = metric in MASKED_METRICS
        ordered = sorted(points, key=lambda point: int(point["timeUnixNano"]))
        digits = 4 if metric in ROUGH_METRICS else 6
        told = [f"{seconds(each['timeUnixNano'])}={'*' if masked else _number(each, digits)}" for each in ordered]
        told = _without_repeats(told)
        return fill(" ".join(told), _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False) + "\n"
    texts = [_total(point, labels) for point in points]
    if metric in FINAL_METRICS:
        texts = texts[-1:]
    return "".join(f"  {text}\n" for text in _without_repeats(texts))


def _without_repeats(texts: list[str]) -> list[str]:
    return [text for before, text in zip([None, *texts], texts, strict=False) if text != before]


def _number(point: Mapping[str, Any], digits: int = 6) -> str:
    return str(point["asInt"]) if "asInt" in point else number(point["asDouble"], digits)


def _total(point: dict[str, Any], labels: Labels) -> str:
    """Return a point of a sum or a histogram without the time of its collection."""
    if "bucketCounts" not in point and "positive" not in point:
        return _number(point)
    told = [
        f"{key}={number(point[key])}" for key in ("count", "sum", "min", "max", "scale", "zeroCount") if key in point
    ]
    told += [f"zeroThreshold={number(point['zeroThreshold'])}"] if point.get("zeroThreshold") else []
    if "bucketCounts" in point:
        told += [f"buckets={_spelled(point['bucketCounts'])}", f"bounds={_spelled(point['explicitBounds'])}"]
    for side in ("positive", "negative"):
        if point.get(side):
            told.append(f"{side}@{point[side].get('offset', 0)}={_spelled(point[side].get('bucketCounts', []))}")
    for each in point.get("exemplars", []):
        value = number(each["asDouble"] if "asDouble" in each else each["asInt"])
        told.append(f"exemplar {value} at {seconds(each['timeUnixNano'])} in {labels.of(each.get('spanId'))}")
    return fill(" ".join(told), _WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)


def _spelled(numbers: list[Any]) -> str:
    """Return numbers with runs of one value shortened: ``0*5 2 1``."""
    told: list[tuple[str, int]] = []
    for each in map(number, numbers):
        if told and told[-1][0] == each:
            told[-1] = (each, told[-1][1] + 1)
        else:
            told.append((each, 1))
    return "[" + " ".join(text if count == 1 else f"{text}*{count}" for text, count in told) + "]"


def _objects(folder: Path, labels: Labels) -> str:
    """Return what public objects and the backend in memory said."""
    lines = [f"loglines/{name}: {count}\n" for name, count in _read(folder / "loglines.json").items()]
    for run in RUNS:
        objects = _read(folder / f"{run}.json")
        events = objects.pop("events")
        lines += _flat(objects, run, labels)
        lines += sorted(_event(each, run, labels) for each in events)
    return "".join(lines)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _event(event: dict[str, Any], run: str, labels: Labels) -> str:
    at = event.pop("time_unix_nano")
    if labels.within(event["event_id"]) == "<id>":
        del event["event_id"]  # one that was derived from another shows
    head = f"{run}/event at {(at - BEGIN) / 1e9:09.4f}"  # sorts as text
    return "".join(_flat(event, f"{head} {event.pop('event_type')}", labels))


def _flat(value: Any, path: str, labels: Labels) -> Iterator[str]:
    """Yield nested data as lines of path and values; what is not nested any further takes one line, which is wrapped."""
    entries = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {"": value}
    flat = {key: _plain(each, labels) for key, each in entries.items() if not _nested(each)}
    if flat:
        named = not isinstance(value, list)
        told = ", ".join(f"{key}={text}" if named and key != "" else text for key, text in flat.items())
        yield (
            fill(f"{path}: {told}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
            + "\n"
        )
    for key, each in entries.items():
        if _nested(each):
            yield from _flat(each, f"{path}/{key:02d}" if isinstance(key, int) else f"{path}/{key}", labels)


def _nested(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(each, dict | list) for each in value)


def _plain(value: Any, labels: Labels) -> str:
    if isinstance(value, list):
        return f"[{' '.join(_plain(each, labels) for each in value)}]"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**18:
        return f"+{seconds(value)}"
    return labels.within(value) if isinstance(value, str) else str(value)


def attributes_of(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Return OTLP JSON attributes as a dictionary."""
    return {each["key"]: value_of(each["value"]) for each in holder.get("attributes", [])}


def value_of(value: Mapping[str, Any]) -> Any:
    """Return an OTLP JSON value; numbers as text."""
    if not value:
        return None
    ((kind, content),) = value.items()
    if kind == "arrayValue":
        return [value_of(each) for each in content.get("values", [])]
    return number(content) if kind == "doubleValue" else content


def _rendered(attributes: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {'*' if key in MASKED_ATTRIBUTES else value}" for key, value in sorted(attributes.items())]


def number(value: Any, digits: int = 6) -> str:
    """Return a number with so many significant digits; whole numbers as they are."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        return value
    return str(value) if isinstance(value, int) else f"{float(value) + 0.0:.{digits}g}"


def seconds(at: str | int) -> str:
    """Return a time as seconds since the clock began."""
    whole, rest = divmod(int(at) - BEGIN, 10**9)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _start(span: Mapping[str, Any]) -> int:
    return int(span["startTimeUnixNano"])
