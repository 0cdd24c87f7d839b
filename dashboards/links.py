"""Links: to other boards, to a trace, and to Jaeger's search in Explore."""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from dashboards.grafana import JAEGER, Json
from nissa.semconv import prometheus

BOARDS: Final = {
    "type": "dashboards",
    "title": "Boards",
    "tags": ["nissa"],
    "asDropdown": False,
    "keepTime": True,
    "includeVars": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "The other boards, with the same run and time",
    "url": "",
}
RUNBOOKS: Final = "docs/how-to/alerts.md"
"""Where it is written what to do about an alert, from the root of the repository."""


def to_traces(title: str, operation: str, tags: Mapping[str, str]) -> Json:
    """Return a link to the traces of an operation in Jaeger.

    Args:
        title: What it is called.
        operation: Name of a span that they have.
        tags: Values by attribute; a value may be a variable of Grafana's.
    """
    query = {
        "refId": "A",
        "datasource": JAEGER,
        "queryType": "search",
        "service": "${service}",
        "operation": operation,
        "tags": tagged(tags),
        "limit": 50,
    }
    span = {"from": "${__from}", "to": "${__to}"}
    panes = {"traces": {"datasource": JAEGER["uid"], "queries": [query], "range": span}}
    # Grafana fills its variables in before the browser decodes, so they stay as they are.
    encoded = quote(json.dumps(panes, separators=(",", ":")), safe="${}:._-")
    return {"title": title, "url": f"/explore?schemaVersion=1&panes={encoded}", "targetBlank": True}


def tagged(tags: Mapping[str, str]) -> str:
    """Return tags as Jaeger's data source takes them: logfmt."""
    return " ".join(f'{key}="{value}"' for key, value in tags.items())


def of_series(key: str) -> str:
    """Return the variable that stands for a label of the series that was clicked on."""
    return f"${{__field.labels.{prometheus.label(key)}}}"


def filling(title: str, variable: str, value: str) -> Json:
    """Return a link that stays on the board and gives a variable a value."""
    url = f"/d/${{__dashboard.uid}}?${{__url_time_range}}&${{__all_variables}}&var-{variable}={value}"
    return {"title": title, "url": url, "targetBlank": False}
