"""A panel as HTML, or as a figure of Nissa's charts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any, Final

import numpy as np

from nissa.charts import Grid, Series, band_chart, gather, heatmap, lines
from nissa.charts.distribution import Band
from nissa.charts.text import shorten
from nissa.charts.theme import LIGHT
from scripts.pictures.answers import Json, Moment
from scripts.pictures.numbers import COLOURS, colour, name, shown
from scripts.pictures.traces import found_traces, one_trace

Drawn = str | Any
"""HTML, or a figure."""

_BAR_ROWS: Final = 9
_TABLE_ROWS: Final = 9
_MOST_LINES: Final = 10
_LEGEND: Final = 22
_WIDE: Final = 12
_ROW: Final = 26
_GAP: Final = 4
_HEADING: Final = 30


def draw(panel: Json, moment: Moment) -> Drawn:
    """Return a panel with the results of its queries, or with its text for missing data."""
    if panel["type"] in _TRACES:
        return _TRACES[panel["type"]](panel, moment) or _empty(panel)
    if panel["targets"][0]["datasource"]["type"] == "jaeger":
        return found_traces(panel, moment) or _empty(panel)
    answers = [(target, moment.ask(target)) for target in panel["targets"]]
    if not any(answer for _, answer in answers):
        return _empty(panel)
    return _DRAWN[panel["type"]](panel, answers)


Answers = Sequence[tuple[Json, list[Json]]]


def _defaults(panel: Json) -> Json:
    defaults: Json = panel["fieldConfig"]["defaults"]
    return defaults


def _empty(panel: Json) -> str:
    return f'<p class="empty">{escape(_defaults(panel)["noValue"])}</p>'


def _series(answers: Answers) -> list[Series]:
    found = []
    for target, answer in answers:
        for each in answer:
            pairs = each.get("values") or [each["value"]]
            times = np.array([int(float(at) * 1e9) for at, _ in pairs], dtype=np.int64)
            values = np.array([float(value) for _, value in pairs])
            found.append(Series(name(each["metric"], target["legendFormat"]), times, values))
    return [replace(each, hue=number) for number, each in enumerate(found)]


def _lines(panel: Json, answers: Answers) -> Drawn:
    defaults = _defaults(panel)
    drawn = sorted(_series(answers), key=lambda each: -len(each.values))[:_MOST_LINES]
    figure = lines(drawn, percent=defaults["unit"] == "percentunit")
    custom = defaults["custom"]
    if custom["scaleDistribution"]["type"] == "log":
        figure.update_yaxes(type="log")
    if custom["stacking"]["mode"] == "normal":
        figure.update_traces(stackgroup="all")
    for step in defaults["thresholds"]["steps"][1:]:
        figure.add_hline(y=step["value"], line={"dash": "dash", "width": 1, "color": COLOURS[step["color"]]})
    return _fitted(figure, panel, longest=max(len(each.name) for each in drawn))


def _fitted(figure: Any, panel: Json, longest: int = 0) -> Any:
    """Fit a figure into its panel, with the legend beside it and long names cut."""
    figure.for_each_trace(lambda trace: trace.update(name=shorten(trace.name or "", _LEGEND)))
    font = {"size": 10}
    legend = {"orientation": "v", "x": 1.01, "y": 1, "yanchor": "top", "font": font, "bgcolor": "rgba(0,0,0,0)"}
    figure.update_xaxes(
        title_text="",
        nticks=4 if longest or panel["gridPos"]["w"] < _WIDE else 12,
        tickangle=0,
        tickfont=font,
        automargin=True,
    )
    figure.update_yaxes(tickfont=font, automargin=True)
    height = int(panel["gridPos"]["h"]) * (_ROW + _GAP) - _GAP - _HEADING
    return figure.update_layout(height=height, legend=legend, margin={"l": 4, "r": 4, "t": 6, "b": 4})


def _last(answers: Answers) -> list[tuple[str, float]]:
    return [(each.name, float(each.values[-1])) for each in _series(answers)]


def _stat(panel: Json, answers: Answers) -> Drawn:
    unit, steps = _defaults(panel)["unit"], _defaults(panel)["thresholds"]["steps"]
    lines = [
        f'<b style="color:{colour(value, steps)}">{escape(shown(value, unit))}</b> <small>{escape(label)}</small>'
        for label, value in _last(answers)
    ]
    return f'<div class="stat">{"<br>".join(lines)}</div>'


def _bars(panel: Json, answers: Answers) -> Drawn:
    defaults = _defaults(panel)
    values = _apart(answers) if answers[0][0]["format"] == "heatmap" else _last(answers)
    most = defaults.get("max") or max((value for _, value in values), default=1.0) or 1.0
    rows = [
        f"<tr><td>{escape(label)}</td><td class=bar><i style='width:{max(0.0, min(1.0, value / most)):.1%};"
        f"background:{colour(value, defaults['thresholds']['steps'])}'></i></td>"
        f"<td class=number>{escape(shown(value, defaults['unit']))}</td></tr>"
        for label, value in values[:_BAR_ROWS]
    ]
    return f"<table>{''.join(rows)}</table>{_more(len(values), _BAR_ROWS)}"


def _apart(answers: Answers) -> list[tuple[str, float]]:
    """Return the individual bucket counts of a histogram from the cumulative counts of Prometheus."""
    ordered = sorted(_last(answers), key=lambda each: float(each[0]))
    below = [0.0, *(count for _, count in ordered)]
    alone = [(f"up to {bound}", count - before) for (bound, count), before in zip(ordered, below, strict=False)]
    return [(bound, count) for bound, count in alone if count]


def _more(rows: int, most: int) -> str:
    return f"<small>and {rows - most} more</small>" if rows > most else ""


def _table(panel: Json, answers: Answers) -> Drawn:
    titles = panel["transformations"][-1]["options"]["renameByName"]
    units = {each["matcher"]["options"]: each["properties"][0]["value"] for each in panel["fieldConfig"]["overrides"]}
    rows: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for target, answer in answers:
        column = "Value" if len(answers) == 1 else f"Value #{target['refId']}"
        for each in answer:
            labels = {key: value for key, value in each["metric"].items() if key in titles}
            unit = str(units.get(titles.get(column, ""), _defaults(panel)["unit"]))
            row = rows.setdefault(tuple(sorted(labels.items())), dict(labels))
            row[column] = shown(float(each["value"][1]), unit)
    head = "".join(f"<th>{escape(title)}</th>" for title in titles.values())
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(row.get(key, ''))}</td>" for key in titles) + "</tr>"
        for row in list(rows.values())[:_TABLE_ROWS]
    )
    return f"<table><tr>{head}</tr>{body}</table>{_more(len(rows), _TABLE_ROWS)}"


def _grid(panel: Json, answers: Answers) -> Drawn:
    """Draw the heatmap. Grafana receives logarithms; our charts take the original values."""
    logarithmic = all("log10(" in target["expr"] for target, _ in answers)
    rows = [replace(each, values=10**each.values) if logarithmic else each for each in _series(answers)]
    grid: Grid = gather(sorted(rows, key=lambda each: each.name), most_columns=100)
    figure = heatmap(grid, title=panel["title"].split(" by ")[0].lower())
    return _fitted(figure, panel)


def _distribution(panel: Json, answers: Answers) -> Drawn:
    """Draw native histograms, each a list of buckets with bounds and counts."""
    ((_, answer),) = answers
    instants = [(float(at), histogram["buckets"]) for at, histogram in answer[0]["histograms"]]
    pairs = sorted(
        {(float(low), float(high)) for _, buckets in instants for _, low, high, _ in buckets if float(low) > 0}
    )
    place = {pair: row for row, pair in enumerate(pairs)}
    shares = np.full((len(pairs), len(instants)), np.nan)
    for column, (_, buckets) in enumerate(instants):
        counts = {(float(low), float(high)): float(count) for _, low, high, count in buckets if float(low) > 0}
        for pair, count in counts.items():
            shares[place[pair], column] = count / sum(counts.values())
    times = [at for at, _ in instants]
    edges = np.array([*times, times[-1] + (times[-1] - times[0]) / max(len(times) - 1, 1)])
    bounds = np.array([pairs[0][0], *(high for _, high in pairs)])
    figure = band_chart(Band((edges * 1e9).astype(np.int64), None, bounds, shares), title="absolute value")
    return _fitted(figure, panel)


def _states(panel: Json, answers: Answers) -> Drawn:
    mapped = _defaults(panel)["mappings"][0]["options"]
    series = _series(answers)
    times = [int(at) for each in series for at in each.times]
    begin, length = min(times), max(max(times) - min(times), 1)
    rows = []
    for each in series:
        ends = [*(int(at) for at in each.times[1:]), begin + length]
        strips = "".join(
            f"<i style='left:{(int(at) - begin) / length:.2%};width:{(end - int(at)) / length:.2%};"
            f"background:{COLOURS.get(mapped[f'{value:g}']['color'], LIGHT.muted)}'></i>"
            for at, end, value in zip(each.times, ends, each.values, strict=True)
        )
        rows.append(f"<tr><td>{escape(each.name)}</td><td class=strip>{strips}</td></tr>")
    key = ", ".join(f"<b style='color:{COLOURS[each['color']]}'>{escape(each['text'])}</b>" for each in mapped.values())
    return f"<table class=states>{''.join(rows)}</table><small>{key}</small>"


_DRAWN: Final[dict[str, Callable[[Json, Answers], Drawn]]] = {
    "timeseries": _lines,
    "stat": _stat,
    "bargauge": _bars,
    "table": _table,
    "status-history": _grid,
    "heatmap": _distribution,
    "state-timeline": _states,
}
_TRACES: Final[dict[str, Callable[[Json, Moment], str]]] = {"traces": one_trace}
