"""Telemetry health, as it is now."""

from typing import Final

from dashboards.board import Row
from dashboards.boards.shared import UNWATCHED
from dashboards.grafana import (
    COUNT,
    GREEN,
    ORANGE,
    SECONDS,
    About,
    Query,
    rising,
    stat,
)
from dashboards.promql import among, chosen, highest, latest, series, summed
from nissa.hub.worker import DROPPED, FAILED, REJECTED
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline

PROCESS: Final = (attr.RUN_ID, attr.RANK)
_ANY: Final = rising(1, 6)
SILENT: Final = "No process of this run exported in this time"
NO_COLLECTOR: Final = "The collector says nothing of itself: it is down, or Prometheus does not take what it sends"
NO_LOSS: Final = "Nothing was lost"


def became(*outcomes: str) -> str:
    """Return the events and measurements of which this became."""
    return chosen(metrics.HUB_EVENTS, {attr.EVENT_OUTCOME: among(*outcomes)})


_PROCESSES = stat(
    About(
        "Processes that export",
        "A distributed run has one a rank. Fewer than before while the run goes on raises an alert.",
        COUNT,
        SILENT,
    ),
    Query(f"count({highest(chosen(metrics.HUB_QUEUE_SIZE), *PROCESS, pipeline.SERVICE_INSTANCE_ID)})"),
)

_LOST_NOW = stat(
    About(
        "Dropped or failed",
        "Events and measurements that a backend did not get, in all of the runs so far. Life-cycle events are never "
        "among the dropped ones.",
        COUNT,
        NO_LOSS,
        _ANY,
    ),
    Query(summed(latest(became(DROPPED, FAILED))), instant=True),
    background=True,
)

_REJECTED_NOW = stat(
    About(
        "Rejected",
        "What was handed to the hub and is no event. The log says why, once for each kind.",
        COUNT,
        "Nothing was rejected",
        _ANY,
    ),
    Query(summed(latest(became(REJECTED))), instant=True),
)

_GAVE_WAY = stat(
    About(
        "Samples that gave way",
        "Sampled steps that were not measured because the reader fell behind. Sampling less often helps.",
        COUNT,
        SILENT,
        _ANY,
    ),
    Query(summed(latest(chosen(metrics.READBACK_DROPPED))), instant=True),
)

_LAG_NOW = stat(
    About(
        "Readback lag",
        "From a step to its statistics being on the host, the slowest.",
        SECONDS,
        UNWATCHED,
        rising(1, 10),
    ),
    Query(highest(chosen(metrics.READBACK_LAG))),
)

_UPTIME = stat(
    About(
        "Collector up for",
        "Short after it began again: it was restarted, and what it had accepted lay on disk.",
        SECONDS,
        NO_COLLECTOR,
        ((None, ORANGE), (300, GREEN)),
    ),
    Query(highest(series(pipeline.UPTIME))),
)

NOW: Final = Row(
    "Now",
    (
        (4, _PROCESSES),
        (4, _LOST_NOW),
        (4, _REJECTED_NOW),
        (4, _GAVE_WAY),
        (4, _LAG_NOW),
        (4, _UPTIME),
    ),
    4,
)
