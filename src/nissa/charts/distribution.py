"""Chart of a distribution over time: share of values per magnitude as colour, quantiles as lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nissa.charts import axes
from nissa.charts.plotly import go
from nissa.charts.series import Series, Times, Values
from nissa.charts.text import plain
from nissa.charts.theme import DENSITY, SERIES

HEIGHT: Final = 380
MOST_TICKS: Final = 9


@dataclass(frozen=True, slots=True)
class Band:
    """Share of values per bucket and time interval, with C intervals (columns) and B buckets (rows).

    Args:
        edges: Shape (C + 1,), interval bounds, nanoseconds since the Unix epoch.
        steps: Shape (C + 1,), optimizer steps at the edges; None if they are unknown.
        bounds: Shape (B + 1,), bucket bounds, ascending and above 0.
        shares: Shape (B, C), fraction of a column's values per bucket; NaN for a column without values.
    """

    edges: Times
    steps: Values | None
    bounds: Values
    shares: Values


def band_chart(band: Band | None, quantiles: Sequence[Series] = (), *, title: str, group: str = "") -> go.Figure:
    """Return a chart of a distribution over time, with a logarithmic y axis.

    Args:
        band: Shares to draw as colour; None to draw only the quantiles.
        quantiles: Lines to draw on top.
        title: Title of the y axis.
        group: Environment filter that shows or hides the chart.
    """
    traces = [] if band is None else [_shares(band, group)]
    traces += [_quantile(each, index, len(quantiles)) for index, each in enumerate(quantiles)]
    axis = {"type": "log", "title": {"text": title}, **_powers(band, quantiles)}
    margin = {"l": 66, "r": 90}
    return axes.figure(traces, height=HEIGHT, yaxis=axis, hovermode="closest", showlegend=True, margin=margin)


def _powers(band: Band | None, quantiles: Sequence[Series]) -> dict[str, Any]:
    """Return axis ticks at powers of ten, at most about ``MOST_TICKS``."""
    values = np.concatenate([np.empty(0) if band is None else band.bounds, *(each.finite for each in quantiles)])
    values = values[values > 0]
    if not len(values):
        return {}
    low, high = max(int(np.floor(np.log10(values.min()))), -307), min(int(np.ceil(np.log10(values.max()))), 308)
    ticks = list(range(low, high + 1, max(1, -(-(high - low) // MOST_TICKS))))
    return {"tickvals": [10.0**each for each in ticks], "ticktext": [f"10<sup>{each}</sup>" for each in ticks]}


def _shares(band: Band, group: str) -> go.Heatmap:
    step = None if band.steps is None else {"x": axes.listed(np.round(band.steps, 2))}
    shares = np.where(band.shares > 0, band.shares, np.nan)
    return go.Heatmap(
        x=axes.milliseconds(band.edges),
        y=axes.small(band.bounds),
        z=axes.small(shares),
        colorscale=DENSITY,
        zmin=0,
        colorbar={"title": {"text": "share of elements", "side": "right"}, "tickformat": ".0%", "thickness": 12},
        hovertemplate="%{x}<br>around %{y:.2g}<br>%{z:.2%} of the elements<extra></extra>",
        hoverongaps=False,
        meta=axes.meta("", group, step),
    )


def _quantile(series: Series, index: int, count: int) -> go.Scatter:
    from_middle = round(abs(index - (count - 1) / 2))
    step = None if series.steps is None else {"x": axes.listed(series.steps)}
    dash = ("solid", "dash", "dot")[min(from_middle, 2)]
    values = np.where(series.values > 0, series.values, np.nan)
    return go.Scatter(
        x=axes.milliseconds(series.times),
        y=axes.small(values),
        mode="lines+markers" if len(values) < 40 else "lines",  # noqa: PLR2004 - few points are hard to see as a line
        name=plain(series.name),
        line={"color": SERIES[series.hue % len(SERIES)], "width": 1.4 if from_middle else 2.4, "dash": dash},
        marker={"size": 4},
        hovertemplate="%{fullData.name}: %{y:.3g}<br>%{x}<extra></extra>",
        meta=axes.meta(series.name, series.group, step),
    )
