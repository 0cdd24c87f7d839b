"""What all boards have in common, and where their panels lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from dashboards.grafana import PROMETHEUS, Json
from dashboards.links import BOARDS
from dashboards.promql import chosen, grown, labels, summed
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus

WIDTH: Final = 24
SCHEMA: Final = 42
"""Version of the classic schema, as Grafana 12.4 writes it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading with panels below, from left to right.

    Args:
        title: The heading.
        panels: Each with its width in columns, of which there are 24; what does not fit begins a new line.
        height: Of each panel.
        collapsed: Whether the panels are hidden, and not queried, until the heading is clicked on.
    """

    title: str
    panels: tuple[tuple[int, Json], ...]
    height: int = 8
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """A board.

    Args:
        uid: Its address, which stays when the title changes.
        title: Its title.
        description: The questions that it answers.
        variables: Variables at its top.
        rows: Its panels.
    """

    uid: str
    title: str
    description: str
    variables: tuple[Json, ...]
    rows: tuple[Row, ...]

    def panels(self) -> list[Json]:
        """Return the panels and headings, each with an id and a place."""
        placed: list[Json] = []
        top = 0
        for row in self.rows:
            heading = {"type": "row", "title": row.title, "collapsed": row.collapsed, "panels": []}
            heading |= {"gridPos": _place(0, top, WIDTH, 1)}
            below, end = _lay(row, top + 1)
            # The panels of a collapsed row are inside its heading, and take no room.
            placed += [heading | {"panels": below}] if row.collapsed else [heading, *below]
            top = top + 1 if row.collapsed else end
        numbers = count(1)
        return [_numbered(panel, numbers) for panel in placed]

    def json(self) -> Json:
        """Return the board as Grafana reads it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["nissa"],
            "schemaVersion": SCHEMA,
            "editable": False,
            "graphTooltip": 1,  # a crosshair that all panels share
            "timezone": "browser",
            "time": {"from": "now-30m", "to": "now"},
            "refresh": "10s",
            "links": [BOARDS],
            "annotations": {"list": [STAGE_CHANGES]},
            "templating": {"list": list(self.variables)},
            "panels": self.panels(),
        }


def every_panel(board: Json) -> Iterator[Json]:
    """Yield the headings and panels of a board as Grafana reads it, those of collapsed rows after their headings."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def _numbered(panel: Json, numbers: Iterator[int]) -> Json:
    """Return a heading or panel with an id, and those inside it with theirs."""
    numbered = panel | {"id": next(numbers)}
    return (
        numbered | {"panels": [_numbered(each, numbers) for each in panel["panels"]]} if "panels" in panel else numbered
    )


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _lay(row: Row, top: int) -> tuple[list[Json], int]:
    """Return a row's panels in their places, and where the next row begins."""
    placed: list[Json] = []
    left = 0
    for width, panel in row.panels:
        if left + width > WIDTH:
            left, top = 0, top + row.height
        placed.append(panel | {"gridPos": _place(left, top, width, row.height)})
        left += width
    return placed, top + row.height


def legend(*keys: str) -> str:
    """Return a legend of the values of attributes."""
    return " ".join(f"{{{{{prometheus.label(key)}}}}}" for key in keys)


def _stage_changes() -> Json:
    # The label for blueprints is one that not every board has a variable for, so no variable of it is asked for.
    changed = summed(
        grown(chosen(metrics.SEED_TRANSITIONS, unbound=(attr.BLUEPRINT_ID, attr.ENV_ID)), "$__interval"),
        attr.SEED_FROM,
        attr.SEED_TO,
        attr.BLUEPRINT_ID,
        attr.ENV_ID,
    )
    return {
        "name": "Stage changes of seeds",
        "enable": True,
        "hide": False,
        "iconColor": "purple",
        "datasource": PROMETHEUS,
        "target": {"refId": "Anno", "expr": changed, "interval": "15s"},
        "titleFormat": f"{legend(attr.BLUEPRINT_ID)}: {legend(attr.SEED_FROM)} to {legend(attr.SEED_TO)}",
        "textFormat": f"environment {legend(attr.ENV_ID)}",
        "tagKeys": labels(attr.SEED_TO).replace(" ", ""),
        "useValueForTime": False,
    }


STAGE_CHANGES: Final = _stage_changes()
