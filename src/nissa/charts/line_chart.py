"""Line chart of series over time; values that are not finite are crosses at the upper edge."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from nissa.charts import axes
from nissa.charts.plotly import go
from nissa.charts.series import Series, averaged, thin
from nissa.charts.text import number, plain
from nissa.charts.theme import FAILED, SERIES

HEIGHT: Final = 300
MOST_POINTS: Final = 1_000
"""Default maximum number of points of a line: about two per pixel of half a screen."""

# Second y axis, fixed to 0..1, for the crosses: they must stay at the upper edge when the first axis is zoomed.
_EDGE: Final = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True, "matches": None}


def lines(
    series: Sequence[Series],
    *,
    unit: str = "",
    percent: bool = False,
    smooth: bool = False,
    most: int = MOST_POINTS,
    height: int = HEIGHT,
) -> go.Figure:
    """Return a line chart.

    Args:
        series: Series to draw; long ones are thinned.
        unit: Title of the y axis.
        percent: Format the values, which are fractions, as percent.
        smooth: Let the reader smooth the lines. A thinned line consists of extremes, so its means are added for that.
        most: Maximum number of points of a line.
        height: Height of the figure, pixels.
    """
    thinned = [thin(each, most) for each in series]
    traces = [_line(each, percent=percent) for each in thinned]
    if smooth:
        for trace, whole, drawn in zip(traces, series, thinned, strict=True):
            trace.meta = {**trace.meta, "smooth": _means(whole, most) if drawn is not whole else {}}
    marks = [_broken(each) for each in thinned if not np.isfinite(each.values).all()]
    axis = {"title": {"text": unit}, "tickformat": ".0%" if percent else "", **_around_a_constant(thinned)}
    extra = {"yaxis2": _EDGE} if marks else {}
    return axes.figure([*traces, *marks], height=height, yaxis=axis, hovermode="x unified", showlegend=True, **extra)


def _around_a_constant(series: Sequence[Series]) -> dict[str, Any]:
    """Return the range of an axis whose lines all have one value: from zero, since the library would show one unit around it."""
    values = {float(value) for each in series for value in np.unique(each.values[np.isfinite(each.values)])[:2]}
    if len(values) != 1 or values == {0.0}:
        return {}
    (value,) = values
    return {"range": sorted([0.0, 2 * value])}


def _line(series: Series, *, percent: bool) -> go.Scatter:
    colour = SERIES[series.hue % len(SERIES)]
    style: dict[str, Any] = {"mode": "lines", "line": {"color": colour, "width": 1.1}}
    if series.sparse or len(series.values) == 1:
        marker = {"color": colour, "size": 5}
        style = {"mode": "lines+markers", "line": {"color": colour, "width": 2.2}, "marker": marker}
    return go.Scatter(
        x=axes.milliseconds(series.times),
        y=axes.small(series.values),
        name=plain(series.name),
        connectgaps=False,
        hovertemplate="%{y:.2%}" if percent else "%{y:.4g}",
        meta=axes.meta(series.name, series.group, _steps(series)),
        **style,
    )


def _means(series: Series, most: int) -> dict[str, Any]:
    """Return the means of a line in at most ``most`` stretches, as attributes of a trace."""
    found = averaged(series, most)
    return {
        "x": axes.listed(axes.milliseconds(found.times)),
        "y": axes.listed(found.values),
        "step": _steps(found) or {},
    }


def _broken(series: Series) -> go.Scatter:
    """Return markers for the values of a series that are not finite."""
    broken = ~np.isfinite(series.values)
    label = f"{series.name}: not finite"
    steps = None if series.steps is None else {"x": axes.listed(series.steps[broken])}
    return go.Scatter(
        x=axes.milliseconds(series.times[broken]),
        y=np.full(int(broken.sum()), 0.97, dtype=np.float32),
        yaxis="y2",
        mode="markers",
        marker={"symbol": "x", "size": 8, "color": FAILED},
        name=plain(label),
        text=[number(float(value)) for value in series.values[broken]],
        hovertemplate="%{text}",
        meta=axes.meta(label, series.group, steps),
    )


def _steps(series: Series) -> dict[str, list[float | None]] | None:
    return None if series.steps is None else {"x": axes.listed(series.steps)}
