"""What several boards show."""

from collections.abc import Sequence
from typing import Final

from dashboards.board import legend
from dashboards.grafana import FRACTION, NUMBER, About, Json, Query, found_traces, lines, rising
from dashboards.links import filling, tagged
from dashboards.promql import chosen
from nissa.semconv import attributes as attr
from nissa.semconv import metrics

UNWATCHED: Final = "Gradients are not watched, or were not sampled in this time"
OVERHEAD: Final = (FRACTION, "Not measured in this time", rising(0.02, 0.05))
"""Unit, reason to be empty and colours of what telemetry costs."""


def overhead(*by: str) -> Json:
    """Show what telemetry costs, a line for each value of some attributes."""
    about = About("Overhead", "Share of wall time that telemetry takes from training.", *OVERHEAD)
    return lines(about, Query(chosen(metrics.OVERHEAD_RATIO), legend(*by)))


def newest(operation: str, title: str, empty: str, choice: Sequence[Json]) -> Json:
    """List the traces of a run that have a span of an operation; a click on one chooses it."""
    link = filling("Show it here", "trace", "${__data.fields.traceID}", *choice)
    about = About(f"{title}, newest first", "A click on one shows it beside this list.", NUMBER, empty, links=(link,))
    return found_traces(about, operation=operation, tags=tagged({attr.RUN_ID: "$run"}))
