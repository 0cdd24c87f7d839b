"""Jaeger panels: a list of found traces, and one trace in detail."""

from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from nissa.semconv import attributes as attr
from nissa.semconv import spans as span_names
from scripts.pictures.answers import Json, Moment
from scripts.pictures.numbers import shown

_ROWS: Final = 9
_SPANS: Final = 8


def found_traces(panel: Json, moment: Moment) -> str:
    """Return the traces of a panel as a table, empty text if there are none."""
    rows = [
        f"<tr><td>{_clock(spans[0])}</td><td>{escape(spans[0]['traceID'][:16])}…</td><td>{len(spans)}</td>"
        f"<td>{escape(shown(spans[0]['duration'] / 1e6, 's'))}</td></tr>"
        for spans in moment.search(panel["targets"][0])[:_ROWS]
    ]
    head = "<tr><th>Began</th><th>Trace</th><th>Spans</th><th>Duration</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>" if rows else ""


def one_trace(panel: Json, moment: Moment) -> str:
    """Return the newest trace of the adjacent panel, span by span."""
    seeds = "seed" in panel["title"].lower()
    target = {"tags": f'{attr.RUN_ID}="$run"', "limit": 20}
    target["operation"] = span_names.SEED if seeds else span_names.VALIDATION
    traces = moment.search(target)
    if not traces:
        return ""
    chosen = max(traces, key=len) if seeds else traces[0]
    begin, length = (
        chosen[0]["startTime"],
        max(max(s["startTime"] + s["duration"] for s in chosen) - chosen[0]["startTime"], 1),
    )
    # Gates have no length; Grafana shows them as marks in a scrollable list.
    shown_spans = [span for span in chosen if span["operationName"] != span_names.GATE]
    rows = "".join(_span(span, begin, length) for span in shown_spans[:_SPANS])
    narratives = [value for span in chosen for key, value in _tags(span).items() if key == attr.NARRATIVE]
    return f"<table class=states>{rows}</table>" + "".join(f"<p>{escape(str(text))}</p>" for text in narratives[:1])


def _span(span: Json, begin: int, length: int) -> str:
    left, width = (span["startTime"] - begin) / length, max(span["duration"] / length, 0.004)
    return (
        f"<tr><td>{escape(span['operationName'])}</td><td class=strip>"
        f"<i style='left:{min(left, 0.996):.2%};width:{width:.2%}'></i></td>"
        f"<td class=number>{escape(shown(span['duration'] / 1e6, 's'))}</td></tr>"
    )


def _tags(span: Json) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def _clock(span: Json) -> str:
    return datetime.fromtimestamp(span["startTime"] / 1e6, tz=UTC).strftime("%H:%M:%S")
