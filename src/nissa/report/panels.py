"""Building blocks of the report page: sections, panels with figures, and tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nissa.charts.series import Series, Values
from nissa.charts.text import ABSENT, number

if TYPE_CHECKING:
    from nissa.charts.plotly import go


@dataclass(frozen=True, slots=True)
class TableRow:
    """Table row.

    Args:
        cells: Text per column.
        group: Environment filter that shows this row; empty if the row is always shown.
        tone: CSS class for emphasis, ``bad`` or ``warning``; empty for none.
    """

    cells: tuple[str, ...]
    group: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Table with a caption.

    Args:
        caption: Description of the content, for screen readers.
        head: Column names.
        numeric: Number of trailing columns that contain numbers, and are aligned to the right.
        title: Heading of a table that is a card of its own, half as wide as the page.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[TableRow, ...]
    numeric: int = 0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """Selectable figure of a panel.

    Args:
        label: Text in the selection list.
        group: Environment of the figure; empty if the run has only one.
    """

    label: str
    group: str
    figure: "go.Figure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Figure, or several selectable figures, with a text summary and a table of the same data.

    Args:
        key: Identifier within the page.
        reading: Instruction for reading the figure.
        summary: Content of the figure in one sentence.
        empty: Reason why the panel has no data; empty if it has data.
        choice: Label of the selection list.
        log: Show a switch for a logarithmic y axis.
        wide: Use the full width of the page.
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
class FindingCard:
    """Finding as the page shows it.

    Args:
        when: Time and step or epoch.
        where: Environment, model and rank; empty if the run has only one.
        seen: What was seen, as a sentence.
        layers: Layers, worst first.
        more_layers: Number of further layers.
        until: Time at which it was cleared, or that it held at the end.
        tone: CSS class for the severity, ``bad`` or ``warning``; empty for none.
        group: Environment filter that shows this card; empty if it is always shown.
    """

    name: str
    when: str
    where: str
    seen: str
    layers: tuple[str, ...]
    more_layers: int
    advice: str
    evidence: str
    until: str
    tone: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSection:
    """Panels, tables and findings under a heading.

    Args:
        note: Remark on the content.
        empty: Reason why the section has no data; empty if it has data.
    """

    key: str
    title: str
    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = field(default=())
    findings: Sequence[FindingCard] = ()
    note: str = ""
    empty: str = ""


SERIES_HEAD: Final = ("series", "points", "first", "last", "lowest", "highest", "not finite")


def series_table(caption: str, series: Sequence[Series], *, percent: bool = False) -> Table:
    """Return a table with a row per series: number of points, first, last and extreme values."""
    rows = [
        TableRow((each.name, f"{len(each.values):,}", *_formatted(each.values, percent=percent)), each.group)
        for each in series
    ]
    return Table(caption, SERIES_HEAD, tuple(rows), numeric=len(SERIES_HEAD) - 1)


def _formatted(values: Values, *, percent: bool) -> tuple[str, ...]:
    finite = [float(each) for each in values[abs(values) < float("inf")]]
    shown = percentage if percent else number
    broken = len(values) - len(finite)
    ends = (
        (number(float(values[0])), number(float(values[-1]))) if not finite else (shown(finite[0]), shown(finite[-1]))
    )
    extremes = (shown(min(finite)), shown(max(finite))) if finite else (ABSENT, ABSENT)
    return (*ends, *extremes, f"{broken:,}")


def percentage(value: float | None) -> str:
    """Format a fraction as percent; None becomes a dash."""
    return ABSENT if value is None else f"{value:.1%}"


def points(value: float | None) -> str:
    """Format a change of a fraction in percentage points with its sign; None becomes a dash."""
    return ABSENT if value is None else f"{value * 100:+.2f}"


def count(value: float | None) -> str:
    """Format a whole number; None becomes a dash."""
    return ABSENT if value is None else f"{value:,.0f}"
