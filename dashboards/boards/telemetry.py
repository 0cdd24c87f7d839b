"""Telemetry health: can the other boards be believed?"""

from typing import Final

from dashboards import variables
from dashboards.board import Board, Row, legend
from dashboards.boards.shared import UNWATCHED, overhead
from dashboards.boards.telemetry_now import NO_COLLECTOR, NO_LOSS, NOW, PROCESS, SILENT, became
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
    table,
)
from dashboards.promql import chosen, grown, highest, isnt, series, summed
from nissa.hub.worker import DELIVERED
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus

_RATE: Final = "$__rate_interval"


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
        SILENT,
    ),
    Query(highest(chosen(metrics.HUB_QUEUE_SIZE), attr.BACKEND_NAME, *PROCESS), legend(attr.BACKEND_NAME, *PROCESS)),
)

_EVENTS = lines(
    About("Events and measurements", "Those that backends got, by type.", PER_SECOND, SILENT),
    Query(summed(f"rate({became(DELIVERED)}[{_RATE}])", attr.EVENT_TYPE), legend(attr.EVENT_TYPE)),
    stacked=True,
)

_LOSSES = lines(
    About("Not delivered", "By backend, type and what became of it, when it was seen.", COUNT, NO_LOSS),
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

_LAG = lines(
    About(
        "Readback lag",
        "From a step to its statistics being on the host.",
        SECONDS,
        UNWATCHED,
        rising(1, 10),
    ),
    Query(chosen(metrics.READBACK_LAG), legend(*PROCESS, attr.ENV_ID, attr.MODEL_NAME)),
)

_SAMPLING = lines(
    About(
        "Sampling interval",
        "Steps from one sampled step to the next; an overhead budget changes it.",
        COUNT,
        "Gradients are not watched",
    ),
    Query(chosen(metrics.SAMPLING_INTERVAL), legend(*PROCESS, attr.ENV_ID, attr.MODEL_NAME)),
)

_OVERHEAD = overhead(*PROCESS, attr.ENV_ID)

_ACCEPTED = lines(
    About("Accepted by the collector", "By signal and receiver.", PER_SECOND, NO_COLLECTOR),
    *_signals(pipeline.ACCEPTED, pipeline.RECEIVER),
)

_REFUSED = lines(
    About(
        "Refused by the collector",
        "Its memory or its queue was full. Senders keep it and try again.",
        PER_SECOND,
        NO_COLLECTOR,
        ((None, GREEN), (0.001, ORANGE)),
    ),
    *_signals(pipeline.REFUSED, pipeline.RECEIVER),
)

_SENT = lines(
    About("Sent by the collector", "By signal and exporter.", PER_SECOND, NO_COLLECTOR),
    *_signals(pipeline.SENT, pipeline.EXPORTER),
)

_EXPORT_FAILURES = lines(
    About(
        "Given up by the collector",
        "What a backend refused for good, such as samples older than Prometheus keeps. It is lost; the collector's log "
        "says why.",
        COUNT,
        NO_LOSS,
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
        NO_COLLECTOR,
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
        NO_COLLECTOR,
    ),
    Query(highest(series(pipeline.MEMORY)), "collector"),
)

_SERIES = bars(
    About(
        "Series",
        "Of the chosen runs, the metrics with most. gradients.max_parameters, gradients.top_k and gradients.group_by "
        "bound them.",
        COUNT,
        SILENT,
    ),
    Query(
        f'topk(12, count by (__name__) ({{__name__=~"nissa_.+",{chosen(metrics.HUB_QUEUE_SIZE).partition("{")[2]}))',
        "{{__name__}}",
        instant=True,
    ),
)

_RANKS = table(
    About("Processes", "Which have exported in this time, and when last.", SECONDS, SILENT),
    Query(
        "time() - "
        + highest(
            f"max_over_time(timestamp({chosen(metrics.HUB_QUEUE_SIZE)})[$__range:1m])",
            *PROCESS,
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
        NOW,
        Row("Hub", ((8, _QUEUES), (8, _EVENTS), (8, _LOSSES))),
        Row("Measuring", ((8, _LAG), (8, _SAMPLING), (8, _OVERHEAD))),
        Row(
            "Collector", ((8, _ACCEPTED), (8, _REFUSED), (8, _SENT), (8, _EXPORT_FAILURES), (8, _FILLED), (8, _MEMORY))
        ),
        Row("Who sends, and how much", ((12, _RANKS), (12, _SERIES))),
    ),
)
