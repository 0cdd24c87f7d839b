"""Colours and fonts of the light and the dark scheme, and contrast measurement.

Series and stages have the same colours in both schemes: each has enough contrast on a dark and on a light page.
`contrast` computes the WCAG 2 contrast ratio, and a test checks every pair.
"""

from dataclasses import dataclass
from typing import Any, Final

from nissa.charts.plotly import go
from nissa.events import Stage

FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'

SERIES: Final = ("#2f80d8", "#d2691e", "#1f9d6b", "#a665d9", "#d24b87", "#128fa0", "#8f7a1f", "#d9534f")
"""Colour palette of the series, used cyclically."""

BAR_TEXT: Final = "#0b0d10"
"""Colour of the text on a stage's bar."""


@dataclass(frozen=True, slots=True)
class StageStyle:
    """Colour and fill pattern of a stage; the pattern identifies it for readers with colour blindness."""

    colour: str
    pattern: str


STAGES: Final[dict[Stage, StageStyle]] = {
    Stage.DORMANT: StageStyle("#8a929e", "."),
    Stage.GERMINATED: StageStyle("#5a8ef0", "-"),
    Stage.TRAINING: StageStyle("#12a0b1", ""),
    Stage.BLENDING: StageStyle("#b98a10", "/"),
    Stage.SHADOWING: StageStyle("#cc68cc", "|"),
    Stage.PROBATIONARY: StageStyle("#c765c4", "\\"),
    Stage.FOSSILIZED: StageStyle("#2ea563", "+"),
    Stage.CULLED: StageStyle("#e5605b", "x"),
    Stage.EMBARGOED: StageStyle("#f0645c", "x"),
    Stage.RESETTING: StageStyle("#868e9a", "."),
    Stage.UNKNOWN: StageStyle("#8a929e", ""),
}
"""Style per stage: the terminal colours, adjusted for enough contrast in both schemes."""

PASSED: Final = "#1f9d6b"
FAILED: Final = "#d9534f"


@dataclass(frozen=True, slots=True)
class Scheme:
    """Colours of a page.

    Args:
        page: Background of the page.
        card: Background of figures and tables.
        plot: Background within the axes, and blank cells of a heatmap.
        ink: Text.
        muted: Secondary text, and axis labels.
        line: Separators.
        grid: Grid lines within the axes.
        accent: Links and selected controls.
        good, warning, bad: Text colour per severity.
    """

    page: str
    card: str
    plot: str
    ink: str
    muted: str
    line: str
    grid: str
    accent: str
    good: str
    warning: str
    bad: str


LIGHT: Final = Scheme(
    page="#f4f5f7",
    card="#ffffff",
    plot="#fafbfc",
    ink="#14181d",
    muted="#56606c",
    line="#d9dde3",
    grid="#e6e9ee",
    accent="#1c5fb8",
    good="#14693f",
    warning="#8a4b00",
    bad="#b3261e",
)
DARK: Final = Scheme(
    page="#0e1115",
    card="#161a20",
    plot="#12161b",
    ink="#e8ebef",
    muted="#a2acb9",
    line="#2b323b",
    grid="#262c35",
    accent="#7db4ff",
    good="#5fd39a",
    warning="#f0b45c",
    bad="#ff8f87",
)
SCHEMES: Final = {"light": LIGHT, "dark": DARK}

HEAT: Final = "Viridis"
"""Colour scale of heatmaps: perceptually uniform, also when printed in grey."""

DENSITY: Final = ((0.0, "rgba(47,128,216,0.08)"), (0.5, "rgba(47,128,216,0.7)"), (1.0, "rgba(30,96,170,1)"))
"""Colour scale of shares: a larger share is more opaque."""


def template(scheme: Scheme) -> go.layout.Template:
    """Return the plotly template of a scheme."""
    axis: dict[str, Any] = {
        "gridcolor": scheme.grid,
        "linecolor": scheme.line,
        "tickcolor": scheme.line,
        "tickfont": {"color": scheme.muted, "size": 12},
        "title": {"font": {"color": scheme.muted, "size": 12}, "standoff": 8},
        "zeroline": False,
    }
    layout: dict[str, Any] = {
        "font": {"family": FONT, "size": 13, "color": scheme.ink},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": scheme.plot,
        "colorway": list(SERIES),
        "xaxis": {**axis, "showspikes": True, "spikemode": "across", "spikethickness": 1, "spikecolor": scheme.muted},
        "yaxis": axis,
        "hoverlabel": {
            "bgcolor": scheme.card,
            "bordercolor": scheme.line,
            "font": {"family": FONT, "size": 12, "color": scheme.ink},
            "align": "left",
            "namelength": -1,
        },
        "legend": {"font": {"color": scheme.ink}, "orientation": "h", "y": 1.02, "yanchor": "bottom"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": scheme.muted, "activecolor": scheme.accent},
        "margin": {"l": 56, "r": 12, "t": 12, "b": 58},
    }
    bar = {
        "tickfont": {"color": scheme.muted, "size": 12},
        "title": {"font": {"color": scheme.muted, "size": 12}},
        "outlinewidth": 0,
    }
    return go.layout.Template(layout=layout, data={"heatmap": [go.Heatmap(colorbar=bar)]})


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour ``#rrggbb``, 0 to 1.

    Source: WCAG 2.2, "relative luminance".
    """
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)  # noqa: PLR2004 - the standard's own
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21.

    Source: WCAG 2.2, "contrast ratio".
    """
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
