"""What a page is made of: figures with their tables, and tables alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nissa.charts.series import Series, Values
from nissa.charts.text import ABSENT, number

if TYPE_CHECKING:
    from nissa.charts.plotly import go


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; ``group`` is the environment that it is shown with, empty for all."""

    cells: tuple[str, ...]
    group: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        caption: What it shows, for those who do not see where it stands.
        head: The columns' names.
        numeric: How many of the last columns are numbers.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: int = 0


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the figures to choose from in a panel.

    Args:
        label: What it is chosen by.
        group: Its environment, empty where there is one.
    """

    label: str
    group: str
    figure: "go.Figure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure, or several to choose from, with what they show in words and as a table.

    Args:
        key: Its name within the page.
        reading: How to read it.
        summary: What it shows, in a sentence.
        empty: Why there is nothing to show, empty where there is.
        choice: What the variants differ in.
        log: Offers a logarithmic y axis.
        wide: Takes the page's whole width.
    """

    key: str
    title: str
    reading: str = ""
    summary: str = ""
    empty: str = ""
    variants: Sequence[Variant] = ()
    table: Table | None = None
    choice: str = ""
    log: bool = False
    wide: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Panels and tables under a heading.

    Args:
        empty: Why there is nothing to show, empty where there is.
    """

    key: str
    title: str
    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = field(default=())
    empty: str = ""


SERIES_HEAD: Final = ("series", "points", "first", "last", "lowest", "highest", "not finite")


def series_table(caption: str, series: Sequence[Series], *, percent: bool = False) -> Table:
    """Return what lines show as a table."""
    rows = [
        Row((each.name, f"{len(each.values):,}", *_told(each.values, percent=percent)), each.group) for each in series
    ]
    return Table(caption, SERIES_HEAD, tuple(rows), numeric=len(SERIES_HEAD) - 1)


def _told(values: Values, *, percent: bool) -> tuple[str, ...]:
    finite = [float(each) for each in values[abs(values) < float("inf")]]
    shown = percentage if percent else number
    broken = len(values) - len(finite)
    ends = (
        (number(float(values[0])), number(float(values[-1]))) if not finite else (shown(finite[0]), shown(finite[-1]))
    )
    extremes = (shown(min(finite)), shown(max(finite))) if finite else (ABSENT, ABSENT)
    return (*ends, *extremes, f"{broken:,}")


def percentage(value: float | None) -> str:
    """Return a fraction as percent; a dash where there is none."""
    return ABSENT if value is None else f"{value:.1%}"


def points(value: float | None) -> str:
    """Return a change of a fraction in points, with its sign; a dash where there is none."""
    return ABSENT if value is None else f"{value * 100:+.2f}"


def count(value: float | None) -> str:
    """Return a whole number; a dash where there is none."""
    return ABSENT if value is None else f"{value:,.0f}"
