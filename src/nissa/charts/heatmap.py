"""Heatmap of magnitudes with a logarithmic colour scale."""

from typing import Any, Final

import numpy as np

from nissa.charts import axes
from nissa.charts.grid import Grid
from nissa.charts.plotly import go
from nissa.charts.series import Values
from nissa.charts.text import plain, shorten
from nissa.charts.theme import HEAT

ROW: Final = 20
LEAST_HEIGHT: Final = 220
MOST_HEIGHT: Final = 860
LABEL: Final = 34
"""Maximum length of a row label, characters; the tooltip shows the full name."""


def heatmap(grid: Grid, *, title: str, group: str = "") -> go.Figure:
    """Return a heatmap of a grid with values of 0 or more.

    The colour is the decimal logarithm. Exact zeros have the lowest colour. Blank cells were not measured.

    Args:
        grid: Values; the first row is drawn at the top.
        title: Title of the colour scale.
        group: Environment filter that shows or hides the heatmap.
    """
    exponents, floor = logarithms(grid.cells)
    names = [plain(row) for row in grid.rows]
    trace = go.Heatmap(
        x=axes.milliseconds(grid.edges),
        y=names,
        z=axes.small(exponents),
        colorscale=HEAT,
        colorbar=colour_bar(exponents, title),
        hovertemplate=f"<b>%{{y}}</b><br>%{{x}}<br>{title} %{{customdata:.3g}}<extra></extra>",
        hoverongaps=False,
        meta={**axes.meta(title, group, _steps(grid)), "floor": floor},
    )
    labels = {"tickvals": names, "ticktext": [plain(shorten(row, LABEL)) for row in grid.rows]}
    height = min(max(ROW * len(names) + 90, LEAST_HEIGHT), MOST_HEIGHT)
    rows = {"type": "category", "autorange": "reversed", "showgrid": False, **(labels if _fits(grid) else {})}
    margin = {"l": axes.room(labels["ticktext"]), "r": 90}
    return axes.figure([trace], height=height, yaxis=rows, hovermode="closest", margin=margin)


def logarithms(cells: Values) -> tuple[Values, float]:
    """Return decimal logarithms, and the substitute for log10(0): about half a decade below the smallest one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.log10(cells)
    finite = exponents[np.isfinite(exponents)]
    floor = float(np.floor(2 * finite.min()) / 2 - 0.5) if len(finite) else 0.0
    return np.where(cells == 0, floor, exponents), floor


def colour_bar(exponents: Values, title: str) -> dict[str, Any]:
    """Return a colour bar whose ticks are powers of ten."""
    finite = exponents[np.isfinite(exponents)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    ticks = np.arange(np.ceil(low), np.floor(high) + 1)
    if len(ticks) < 2:  # noqa: PLR2004 - one tick does not show a scale
        ticks = np.unique([low, high])
    texts = [f"10<sup>{each:.0f}</sup>" if each == round(each) else f"{10**each:.2g}" for each in ticks]
    return {"title": {"text": title, "side": "right"}, "tickvals": ticks, "ticktext": texts, "thickness": 12}


def _fits(grid: Grid) -> bool:
    """Whether every row has room for its label; otherwise plotly selects the labels itself."""
    return len(grid.rows) * 12 <= MOST_HEIGHT - 90


def _steps(grid: Grid) -> dict[str, list[float | None]] | None:
    return None if grid.steps is None else {"x": axes.listed(np.round(grid.steps, 2))}
