"""Telemetry health: can the other boards be believed?"""

from typing import Final

from dashboards import variables
from dashboards.board import Board, Row, legend
from dashboards.boards.shared import UNWATCHED, overhead
from dashboards.grafana import (
    BYTES,
    COUNT,
    FRACTION,
    GREEN,
    ORANGE,
    PER_SECOND,
    RED,
    SECONDS,
    About,
    Query,
    bars,
    lines,
    rising,
    stat,
    table,
)
from dashboards.promql import among, chosen, grown, highest, isnt, latest, series, summed
from nissa.hub.worker import DELIVERED, DROPPED, FAILED, REJECTED
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus

_RATE: Final = "$__rate_interval"
_PROCESS: Final = (attr.RUN_ID, attr.RANK)
_ANY: Final = rising(1, 6)
_SILENT: Final = "No process of this run exported in this time"
_NO_COLLECTOR: Final = "The collector says nothing of itself: it is down, or Prometheus does not take what it sends"
_NO_LOSS: Final = "Nothing was lost"


def _became(*outcomes: str) -> str:
    """Return the selector of events and measurements with one of these outcomes."""
    return chosen(metrics.HUB_EVENTS, {attr.EVENT_OUTCOME: among(*outcomes)})


_PROCESSES = stat(
    About(
        "Processes that export",
        "A distributed run has one a rank. Fewer than before while the run goes on raises an alert.",
        COUNT,
        _SILENT,
    ),
    Query(f"count({highest(chosen(metrics.HUB_QUEUE_SIZE), *_PROCESS, pipeline.SERVICE_INSTANCE_ID)})"),
)

_LOST_NOW = stat(
    About(
        "Dropped or failed",
        "Events and measurements that a backend did not get, in all of the runs so far. Life-cycle events are never "
        "among the dropped ones.",
        COUNT,
        _NO_LOSS,
        _ANY,
    ),
    Query(summed(latest(_became(DROPPED, FAILED))), instant=True),
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
    Query(summed(latest(_became(REJECTED))), instant=True),
)

_GAVE_WAY = stat(
    About(
        "Samples that gave way",
        "Sampled steps that were not measured because the reader fell behind. Sampling less often helps.",
        COUNT,
        _SILENT,
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
        _NO_COLLECTOR,
        ((None, ORANGE), (300, GREEN)),
    ),
    Query(highest(series(pipeline.UPTIME))),
)

_NOW: Final = Row(
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


def _signals(sources: tuple[pipeline.PipelineSeries, ...], key: str) -> tuple[Query, ...]:
    return tuple(
        Query(summed(f"rate({series(source)}[{_RATE}])", key), f"{signal} {legend(key)}")
        for source, signal in zip(sources, pipeline.SIGNALS, strict=True)
    )


_QUEUES = lines(
    About(
        "Queues of the hub",
        "What waits for each backend. A queue that only grows belongs to a backend that hangs; a full one drops "
        "measurements.",
        COUNT,
        _SILENT,
    ),
    Query(highest(chosen(metrics.HUB_QUEUE_SIZE), attr.BACKEND_NAME, *_PROCESS), legend(attr.BACKEND_NAME, *_PROCESS)),
)

_EVENTS = lines(
    About("Events and measurements", "Those that backends got, by type.", PER_SECOND, _SILENT),
    Query(summed(f"rate({_became(DELIVERED)}[{_RATE}])", attr.EVENT_TYPE), legend(attr.EVENT_TYPE)),
    stacked=True,
)

_LOSSES = lines(
    About("Not delivered", "By backend, type and what became of it, when it was seen.", COUNT, _NO_LOSS),
    Query(
        summed(
            grown(chosen(metrics.HUB_EVENTS, {attr.EVENT_OUTCOME: isnt(DELIVERED)}), "$__interval"),
            attr.BACKEND_NAME,
            attr.EVENT_TYPE,
            attr.EVENT_OUTCOME,
        ),
        legend(attr.BACKEND_NAME, attr.EVENT_TYPE, attr.EVENT_OUTCOME),
    ),
    stacked=True,
    bars=True,
)

_EXPORTED = lines(
    About(
        "Exported items",
        "Spans, metric points and log records that the collector accepted, by signal.",
        PER_SECOND,
        _SILENT,
    ),
    Query(
        summed(f"rate({chosen(metrics.EXPORT_ITEMS, {attr.EXPORT_OUTCOME: among(DELIVERED)})}[{_RATE}])", attr.SIGNAL),
        legend(attr.SIGNAL),
    ),
)

_EXPORT_LOSSES = lines(
    About(
        "Refused or lost",
        "What the collector refused for good, and what had no room on disk or could not be encoded.",
        COUNT,
        _NO_LOSS,
        ((None, GREEN), (1, RED)),
    ),
    Query(
        summed(
            grown(chosen(metrics.EXPORT_ITEMS, {attr.EXPORT_OUTCOME: isnt(DELIVERED)}), "$__interval"),
            attr.SIGNAL,
            attr.EXPORT_OUTCOME,
        ),
        legend(attr.SIGNAL, attr.EXPORT_OUTCOME),
    ),
    stacked=True,
    bars=True,
)

_JOURNAL = lines(
    About(
        "Journal",
        "Telemetry on the disk of a training process. It grows while the collector is away, and shrinks when it accepted it.",
        BYTES,
        _SILENT,
    ),
    Query(highest(chosen(metrics.JOURNAL_SIZE), *_PROCESS), legend(*_PROCESS)),
)

_LAG = lines(
    About(
        "Readback lag",
        "From a step to its statistics being on the host.",
        SECONDS,
        UNWATCHED,
        rising(1, 10),
    ),
    Query(chosen(metrics.READBACK_LAG), legend(*_PROCESS, attr.ENV_ID, attr.MODEL_NAME)),
)

_SAMPLING = lines(
    About(
        "Sampling interval",
        "Steps from one sampled step to the next; an overhead budget changes it.",
        COUNT,
        "Gradients are not watched",
    ),
    Query(chosen(metrics.SAMPLING_INTERVAL), legend(*_PROCESS, attr.ENV_ID, attr.MODEL_NAME)),
)

_OVERHEAD = overhead(*_PROCESS, attr.ENV_ID)

_ACCEPTED = lines(
    About("Accepted by the collector", "By signal and receiver.", PER_SECOND, _NO_COLLECTOR),
    *_signals(pipeline.ACCEPTED, pipeline.RECEIVER),
)

_REFUSED = lines(
    About(
        "Refused by the collector",
        "Its memory or its queue was full. Senders keep it and try again.",
        PER_SECOND,
        _NO_COLLECTOR,
        ((None, GREEN), (0.001, ORANGE)),
    ),
    *_signals(pipeline.REFUSED, pipeline.RECEIVER),
)

_SENT = lines(
    About("Sent by the collector", "By signal and exporter.", PER_SECOND, _NO_COLLECTOR),
    *_signals(pipeline.SENT, pipeline.EXPORTER),
)

_EXPORT_FAILURES = lines(
    About(
        "Given up by the collector",
        "What a backend refused for good, such as samples older than Prometheus keeps. It is lost; the collector's log "
        "says why.",
        COUNT,
        _NO_LOSS,
        ((None, GREEN), (1, RED)),
    ),
    Query(
        " or ".join(summed(series(source), pipeline.EXPORTER) for source in pipeline.SEND_FAILED),
        legend(pipeline.EXPORTER),
    ),
)

_FILLED = lines(
    About(
        "Queues of the collector",
        "How full they are. They grow while Jaeger or Prometheus is away, and lie on disk.",
        FRACTION,
        _NO_COLLECTOR,
        rising(0.5, 0.8),
    ),
    Query(
        highest(f"{series(pipeline.QUEUE_SIZE)} / {series(pipeline.QUEUE_CAPACITY)}", pipeline.EXPORTER),
        legend(pipeline.EXPORTER),
    ),
)

_MEMORY = lines(
    About(
        "Memory of the collector",
        "Resident memory; it refuses what comes in at COLLECTOR_MEMORY_MIB.",
        BYTES,
        _NO_COLLECTOR,
    ),
    Query(highest(series(pipeline.MEMORY)), "collector"),
)

_SERIES = bars(
    About(
        "Series",
        "Of the chosen runs, the metrics with most. gradients.max_parameters, gradients.top_k and gradients.group_by "
        "bound them.",
        COUNT,
        _SILENT,
    ),
    Query(
        f'topk(12, count by (__name__) ({{__name__=~"nissa_.+",{chosen(metrics.HUB_QUEUE_SIZE).partition("{")[2]}))',
        "{{__name__}}",
        instant=True,
    ),
)

_RANKS = table(
    About("Processes", "Which have exported in this time, and when last.", SECONDS, _SILENT),
    Query(
        "time() - "
        + highest(
            f"max_over_time(timestamp({chosen(metrics.HUB_QUEUE_SIZE)})[$__range:1m])",
            *_PROCESS,
            attr.WORLD_SIZE,
            pipeline.SERVICE_INSTANCE_ID,
        ),
        instant=True,
        form="table",
    ),
    columns={
        prometheus.label(attr.RUN_ID): "Run",
        prometheus.label(attr.RANK): "Rank",
        prometheus.label(attr.WORLD_SIZE): "Ranks",
        prometheus.label(pipeline.SERVICE_INSTANCE_ID): "Process",
        "Value": "Last export ago",
    },
)

BOARD: Final = Board(
    "nissa-telemetry",
    "Nissa: Telemetry health",
    "Does everything arrive? What is dropped, what waits, and what does the collector do?",
    (variables.SERVICE, variables.RUNS, variables.RANK, variables.ENVIRONMENT, variables.MODEL),
    (
        _NOW,
        Row("Hub", ((8, _QUEUES), (8, _EVENTS), (8, _LOSSES))),
        Row("Export", ((8, _EXPORTED), (8, _EXPORT_LOSSES), (8, _JOURNAL))),
        Row("Measuring", ((8, _LAG), (8, _SAMPLING), (8, _OVERHEAD))),
        Row(
            "Collector", ((8, _ACCEPTED), (8, _REFUSED), (8, _SENT), (8, _EXPORT_FAILURES), (8, _FILLED), (8, _MEMORY))
        ),
        Row("Who sends, and how much", ((12, _RANKS), (12, _SERIES))),
    ),
)
