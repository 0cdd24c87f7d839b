"""Swimlane chart of seeds: one row per seed, stages as coloured bars, gate results as markers above them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nissa.charts import axes
from nissa.charts.plotly import go
from nissa.charts.text import plain, shorten
from nissa.charts.theme import BAR_TEXT, FAILED, PASSED, STAGES
from nissa.events import Stage

ROW: Final = 40
LABEL: Final = 36
_THICK: Final = 0.55
_MARKS_ABOVE: Final = 0.4
_SHORTEST: Final = 1.0
"""Minimum length of a bar, milliseconds; a stage of zero length would be invisible at any zoom level."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Stage of a seed; times in nanoseconds since the Unix epoch, steps NaN if unknown.

    Args:
        open_end: The stage had not ended at the end of the recording.
        tooltip: Lines of the tooltip.
    """

    stage: Stage
    start: int
    end: int
    start_step: float
    end_step: float
    open_end: bool = False
    tooltip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Marker of a gate result (``passed`` is a bool) or of a cull (``passed`` is None)."""

    label: str
    time: int
    step: float
    passed: bool | None
    tooltip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lane:
    """Row of the chart: the stages and gate results of one seed."""

    label: str
    group: str
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


def swimlane(lanes: Sequence[Lane]) -> go.Figure:
    """Return a swimlane chart with the first seed at the top."""
    traces: list[Any] = []
    for stage in STAGES:
        rows = [(row, bar) for row, lane in enumerate(lanes) for bar in lane.bars if bar.stage is stage]
        traces += [_bars(stage, rows)] if rows else []
    for name, passed, symbol, colour in _MARKS:
        marked = [(row, mark) for row, lane in enumerate(lanes) for mark in lane.marks if mark.passed is passed]
        traces += [_marks(name, symbol, colour, marked)] if marked else []
    open_ends = [(row, bar) for row, lane in enumerate(lanes) for bar in lane.bars if bar.open_end]
    traces += [_open(open_ends)] if open_ends else []
    labels: dict[str, Any] = {
        "tickvals": list(range(len(lanes))),
        "ticktext": [plain(shorten(lane.label, LABEL)) for lane in lanes],
        "range": [len(lanes) - 0.35, -0.75],
        "showgrid": False,
    }
    return axes.figure(
        traces,
        height=ROW * len(lanes) + 90,
        yaxis=labels,
        barmode="overlay",
        bargap=0,
        hovermode="closest",
        showlegend=True,
        margin={"l": axes.room(labels["ticktext"])},
        meta={"lanes": [lane.group for lane in lanes], "row": ROW},
        uniformtext={"minsize": 10, "mode": "hide"},
    )


_MARKS: Final = (
    ("gate passed", True, "triangle-up", PASSED),
    ("gate not passed", False, "triangle-down-open", FAILED),
    ("culled", None, "x", FAILED),
)


def _bars(stage: Stage, rows: "Sequence[tuple[int, Bar]]") -> go.Bar:
    style = STAGES[stage]
    starts, ends = (
        axes.milliseconds(np.array(each)) for each in zip(*((b.start, b.end) for _, b in rows), strict=True)
    )
    first = np.array([bar.start_step for _, bar in rows])
    last = np.array([bar.end_step for _, bar in rows])
    step = {"base": axes.listed(first), "x": axes.listed(np.maximum(last - first, 0.05))}
    return go.Bar(
        orientation="h",
        y=[row for row, _ in rows],
        base=starts,
        x=np.maximum(ends - starts, _SHORTEST),
        width=_THICK,
        name=stage.label,
        text=[stage.label] * len(rows),
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        insidetextfont={"color": BAR_TEXT, "size": 11},
        marker={
            "color": style.colour,
            "line": {"width": 0},
            "pattern": {
                "shape": style.pattern,
                "fillmode": "overlay",
                "fgcolor": "#ffffff",
                "fgopacity": 0.28,
                "size": 7,
                "solidity": 0.2,
            },
        },
        customdata=[_tooltip_html(bar.tooltip) for _, bar in rows],
        hovertemplate="%{customdata}<extra></extra>",
        meta=axes.meta(stage.label, "", step),
    )


def _marks(name: str, symbol: str, colour: str, rows: "Sequence[tuple[int, Mark]]") -> go.Scatter:
    above = 0.0 if rows[0][1].passed is None else _MARKS_ABOVE
    return go.Scatter(
        mode="markers",
        x=axes.milliseconds(np.array([mark.time for _, mark in rows])),
        y=[row - above for row, _ in rows],
        marker={"symbol": symbol, "size": 9, "color": colour, "line": {"width": 1.4, "color": colour}},
        name=name,
        customdata=[_tooltip_html(mark.tooltip) for _, mark in rows],
        hovertemplate="%{customdata}<extra></extra>",
        meta=axes.meta(name, "", {"x": axes.listed(np.array([mark.step for _, mark in rows]))}),
    )


def _open(rows: "Sequence[tuple[int, Bar]]") -> go.Scatter:
    """Return markers for seeds that were neither fossilized nor culled at the end of the recording."""
    return go.Scatter(
        mode="markers",
        x=axes.milliseconds(np.array([bar.end for _, bar in rows])),
        y=[row for row, _ in rows],
        marker={"symbol": "triangle-right", "size": 13, "color": STAGES[Stage.DORMANT].colour},
        name="fate still open",
        customdata=[_tooltip_html(bar.tooltip) for _, bar in rows],
        hovertemplate="fate still open<br>%{customdata}<extra></extra>",
        meta=axes.meta("fate still open", "", {"x": axes.listed(np.array([bar.end_step for _, bar in rows]))}),
    )


def _tooltip_html(lines: Sequence[str]) -> str:
    return "<br>".join(plain(line) for line in lines)
