"""Panels as Grafana's classic schema has them: one function per kind, each a dictionary without id and place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

PROMETHEUS: Final = {"type": "prometheus", "uid": "prometheus"}
JAEGER: Final = {"type": "jaeger", "uid": "jaeger"}

GREEN: Final = "green"
YELLOW: Final = "yellow"
ORANGE: Final = "orange"
RED: Final = "red"
NEUTRAL: Final = "text"

NUMBER: Final = "none"
"""Unit of what has none."""
COUNT: Final = "short"
FRACTION: Final = "percentunit"
SECONDS: Final = "s"
SCIENTIFIC: Final = "sci"
BYTES: Final = "bytes"
PER_SECOND: Final = "cps"

RATE_STEP: Final = "30s"
"""Least step of a query for a rate. Grafana then takes rates over 2 minutes, in which there are two of the exports that
come once a minute unless OTEL_METRIC_EXPORT_INTERVAL says otherwise; gauges have finer steps, since they keep each
step's time."""

Steps = tuple[tuple[float | None, str], ...]
"""Thresholds: from which value on which colour; the first begins at None, which is everything below."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query of Prometheus.

    Args:
        expression: PromQL.
        legend: Name of its series; ``{{label}}`` stands for a label.
        instant: One value for the end of the range, and not a line.
        exemplars: Whether to ask for exemplars too; a click on one leads to its trace.
        form: ``time_series``, ``table`` or ``heatmap``.
    """

    expression: str
    legend: str = ""
    instant: bool = False
    exemplars: bool = False
    form: str = "time_series"


@dataclass(frozen=True, slots=True)
class About:
    """What every panel says of itself.

    Args:
        title: Its title.
        description: What it shows, and what to make of it.
        unit: Unit of its values, one of the constants above.
        empty: What stands there when there is no data: the reason, and whether that is good.
        steps: Thresholds.
        links: Where a click on a value leads.
    """

    title: str
    description: str
    unit: str
    empty: str
    steps: Steps = ()
    links: tuple[Json, ...] = ()


def _targets(queries: Sequence[Query]) -> list[Json]:
    return [
        {
            "refId": chr(ord("A") + number),
            "datasource": PROMETHEUS,
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend or "__auto",
            "range": not query.instant,
            "instant": query.instant,
            "exemplar": query.exemplars,
            "format": query.form,
            "interval": RATE_STEP if "$__rate_interval" in query.expression else "",
        }
        for number, query in enumerate(queries)
    ]


def _panel(kind: str, about: About, targets: list[Json], options: Json, custom: Json | None = None) -> Json:
    steps = about.steps or ((None, NEUTRAL),)
    return {
        "type": kind,
        "title": about.title,
        "description": about.description,
        "datasource": targets[0]["datasource"] if targets else PROMETHEUS,
        "targets": targets,
        "fieldConfig": {
            "defaults": {
                "unit": about.unit,
                "noValue": about.empty,
                "color": {"mode": "thresholds" if about.steps else "palette-classic"},
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"value": value, "color": color} for value, color in steps],
                },
                "links": list(about.links),
                "custom": custom or {},
            },
            "overrides": [],
        },
        "options": options,
    }


def lines(about: About, *queries: Query, stacked: bool = False, bars: bool = False, log: bool = False) -> Json:
    """Return a time series; thresholds are lines across it.

    Points of an epoch may be many minutes apart, so that gaps of up to an hour are bridged.
    """
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if stacked or bars else 0,
        "showPoints": "auto",
        "spanNulls": False if bars else 3_600_000,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if about.steps else "off"},
    }
    options = {
        "legend": {"displayMode": "table", "placement": "right", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    panel = _panel("timeseries", about, _targets(queries), options, custom)
    panel["fieldConfig"]["defaults"]["color"] = {"mode": "palette-classic"}
    return panel


def stat(about: About, *queries: Query, background: bool = False) -> Json:
    """Return one number, the last of the range, with its course behind it."""
    options = {
        "colorMode": "background" if background else "value",
        "graphMode": "none" if all(query.instant for query in queries) else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "textMode": "value_and_name" if any(query.legend for query in queries) else "value",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    return _panel("stat", about, _targets(queries), options)


def bars(about: About, *queries: Query, most: float | None = None) -> Json:
    """Return a horizontal bar for each series."""
    options = {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "showUnfilled": True,
        "valueMode": "color",
        "namePlacement": "left",
        "sizing": "auto",
        "minVizHeight": 12,
        "minVizWidth": 8,
        "maxVizHeight": 40,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
    }
    panel = _panel("bargauge", about, _targets(queries), options)
    panel["fieldConfig"]["defaults"] |= {"min": 0} | ({} if most is None else {"max": most})
    return panel


def heatmap(about: About, query: Query, *, log: bool = True) -> Json:
    """Return how values are distributed, over time; a native histogram brings its own buckets."""
    options = {
        "calculate": False,
        "cellGap": 0,
        "color": {
            "mode": "scheme",
            "scheme": "Turbo",
            "scale": "exponential",
            "exponent": 0.5,
            "fill": "dark-orange",
            "reverse": False,
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "unit": about.unit, "reverse": False},
    }
    scale = {"type": "log", "log": 2} if log else {"type": "linear"}
    return _panel("heatmap", about, _targets([query]), options, {"scaleDistribution": scale})


def grid(about: About, query: Query, *, columns: int = 100) -> Json:
    """Return a row of coloured cells for each series, over time; 25 rows a page."""
    options = {
        "showValue": "never",
        "rowHeight": 0.9,
        "perPage": 25,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    panel = _panel("status-history", about, _targets([query]), options, {"fillOpacity": 90, "lineWidth": 0})
    return panel | {"maxDataPoints": columns}


def states(about: About, query: Query, names: Mapping[str, tuple[str, str]]) -> Json:
    """Return a band for each series that changes colour with its value; ``names`` has text and colour by value."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.9,
        "perPage": 25,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    panel = _panel("state-timeline", about, _targets([query]), options, {"fillOpacity": 80, "lineWidth": 0})
    mapped = {
        value: {"text": text, "color": color, "index": at} for at, (value, (text, color)) in enumerate(names.items())
    }
    panel["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": mapped}]
    return panel


def table(about: About, *queries: Query, columns: Mapping[str, str], by: Sequence[str] = ()) -> Json:
    """Return a table of instant queries, joined where their labels agree.

    Args:
        about: What it is.
        queries: Its queries, each an instant one.
        columns: Titles by label, or by ``Value #A`` and so on where there are several queries; what has none is hidden.
        by: Units by title, as ``title=unit``, where they differ from the panel's.
    """
    organise = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True, "__name__": True},
            "indexByName": {name: place for place, name in enumerate(columns)},
            "renameByName": dict(columns),
        },
    }
    options = {"showHeader": True, "cellHeight": "sm"}
    panel = _panel("table", about, _targets(queries), options, {"align": "auto", "filterable": True})
    panel["transformations"] = [{"id": "merge", "options": {}}, organise]
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": title},
            "properties": [{"id": "unit", "value": unit}],
        }
        for title, _, unit in (each.partition("=") for each in by)
    ]
    return panel


def found_traces(about: About, *, operation: str, tags: str, limit: int = 20) -> Json:
    """Return the traces that Jaeger finds, newest first; a click on one asks for it by ``about.links``."""
    target = {
        "refId": "A",
        "datasource": JAEGER,
        "queryType": "search",
        "service": "$service",
        "operation": operation,
        "tags": tags,
        "limit": limit,
    }
    return _panel("table", about, [target], {"showHeader": True, "cellHeight": "sm"}, {"align": "auto"})


def one_trace(about: About, variable: str) -> Json:
    """Return the trace whose id a variable holds, span by span."""
    return _panel("traces", about, [{"refId": "A", "datasource": JAEGER, "query": f"${variable}"}], {})
