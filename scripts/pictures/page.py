"""HTML page of a board, with the panels at the same places as in Grafana."""

import json
from html import escape
from pathlib import Path
from typing import Final

from dashboards.board import every_panel
from nissa.charts.plotly import get_plotlyjs
from nissa.charts.theme import FONT, LIGHT
from scripts.pictures.answers import Json, Moment
from scripts.pictures.panels import draw

MARK: Final = (
    "Drawn by Nissa's own charts from what Prometheus and Jaeger answered after the demo; Grafana draws it its own way."
)

_STYLE: Final = f"""
body {{ margin: 0; padding: 14px; background: {LIGHT.page}; color: {LIGHT.ink}; font: 12.5px/1.4 {FONT}; }}
h1 {{ font-size: 19px; margin: 0; }} header p {{ margin: 2px 0 10px; color: {LIGHT.muted}; }}
header .mark {{ display: inline-block; padding: 3px 9px; border: 1px solid {LIGHT.warning}; color: {LIGHT.warning};
  border-radius: 5px; background: {LIGHT.card}; }}
main {{ display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: 26px; gap: 4px; }}
h2 {{ font-size: 13.5px; margin: 0; align-self: end; }}
section {{ background: {LIGHT.card}; border: 1px solid {LIGHT.line}; border-radius: 4px; overflow: hidden; padding: 4px 8px; }}
h3 {{ font-size: 12px; margin: 0 0 2px; font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
table {{ border-collapse: collapse; width: 100%; font-size: 11.5px; }}
td, th {{ text-align: left; padding: 1.5px 6px 1.5px 0; white-space: nowrap; border-bottom: 1px solid {LIGHT.grid}; }}
th {{ color: {LIGHT.muted}; font-weight: 600; }} td:first-child {{ max-width: 190px; overflow: hidden; text-overflow: ellipsis; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; }} .bar {{ width: 55%; }} .strip {{ width: 65%; position: relative; }}
.bar i {{ display: block; height: 11px; border-radius: 2px; }}
.strip i {{ position: absolute; top: 3px; height: 12px; background: {LIGHT.accent}; }}
.stat b {{ font-size: 21px; }} .stat small, small {{ color: {LIGHT.muted}; }} .empty {{ color: {LIGHT.muted}; font-style: italic; }}
"""


def page(board: Json, moment: Moment) -> str:
    """Return a board as self-contained HTML."""
    figures: dict[str, Json] = {}
    panels = "".join(_panel(panel, moment, figures) for panel in every_panel(board))
    drawing = "".join(
        f"Plotly.newPlot({json.dumps(key)}, {json.dumps(figure['data'])}, {json.dumps(figure['layout'])}, {{staticPlot: true}});"
        for key, figure in figures.items()
    ).replace("</", "<\\/")
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(board['title'])}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script><header><h1>{escape(board['title'])}</h1>"
        f"<p>{escape(board['description'])}</p><p class=mark>{escape(MARK)}</p></header><main>{panels}</main>"
        f"<script>{drawing} document.documentElement.dataset.drawn = 'yes'</script>"
    )


def _panel(panel: Json, moment: Moment, figures: dict[str, Json]) -> str:
    at = panel["gridPos"]
    place = f"grid-column: {at['x'] + 1} / span {at['w']}; grid-row: {at['y'] + 1} / span {at['h']}"
    if panel["type"] == "row":
        return f'<h2 style="{place}">{escape(panel["title"])}</h2>'
    drawn = draw(panel, moment)
    if not isinstance(drawn, str):
        key = f"panel-{panel['id']}"
        figures[key] = json.loads(drawn.to_json())
        drawn = f'<div id="{key}"></div>'
    return f'<section style="{place}"><h3>{escape(panel["title"])}</h3>{drawn}</section>'


def write(board: Json, moment: Moment, folder: Path) -> Path:
    """Write a board's page into a folder; return its path."""
    path = folder / f"{board['uid']}.html"
    path.write_text(page(board, moment), encoding="utf-8")
    return path
