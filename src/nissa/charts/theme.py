"""Colours and type, light and dark, and what makes them legible.

The colours of series and stages are the same in both: each is light enough for a dark page and dark enough for a light
one. `contrast` measures that as WCAG 2 does, and a test holds every pair to it.
"""

from dataclasses import dataclass
from typing import Any, Final

from nissa.charts.plotly import go
from nissa.events import Stage

FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'

SERIES: Final = ("#2f80d8", "#d2691e", "#1f9d6b", "#a665d9", "#d24b87", "#128fa0", "#8f7a1f", "#d9534f")
"""What series are drawn in, in turn."""

BAR_TEXT: Final = "#0b0d10"
"""Words on a bar of any stage."""


@dataclass(frozen=True, slots=True)
class StageStyle:
    """How a stage is drawn: a pattern says it too, to those who cannot tell the colours apart."""

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
"""The stages in the colours of the terminal, bent until they are legible on both pages."""

PASSED: Final = "#1f9d6b"
FAILED: Final = "#d9534f"


@dataclass(frozen=True, slots=True)
class Scheme:
    """The colours of a page.

    Args:
        page: Behind everything.
        card: Behind a figure or a table.
        plot: Within the axes; a heatmap's blank cells.
        ink: Text.
        muted: Text of lesser weight, labels of axes.
        line: What separates.
        grid: Lines within the axes.
        accent: Links, and what is chosen.
        good, warning, bad: Text that judges.
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
"""The scale of heatmaps: even to the eye, and in grey."""

DENSITY: Final = ((0.0, "rgba(47,128,216,0.08)"), (0.5, "rgba(47,128,216,0.7)"), (1.0, "rgba(30,96,170,1)"))
"""The scale of shares: the more, the less the page shows through."""


def template(scheme: Scheme) -> go.layout.Template:
    """Return what figures look like on a page of a scheme."""
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
    """Return the relative luminance of ``#rrggbb``, 0 to 1.

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
