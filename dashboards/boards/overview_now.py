"""Overview, as things are now."""

from typing import Final

from dashboards.board import Row
from dashboards.boards.shared import OVERHEAD, UNWATCHED
from dashboards.grafana import (
    COUNT,
    FRACTION,
    NUMBER,
    PER_SECOND,
    SECONDS,
    About,
    Query,
    falling,
    rising,
    stat,
)
from dashboards.promql import chosen, highest, lowest, summed
from nissa.semconv import attributes as attr
from nissa.semconv import metrics

RATE: Final = "$__rate_interval"
NONE_YET: Final = "No step was taken in this time"
NOT_VALIDATED: Final = "Nothing was validated in this time"

_EPOCH = stat(
    About("Epoch", "Number of the epoch under way, the furthest environment's.", COUNT, "No epoch began in this time"),
    Query(highest(chosen(metrics.EPOCH))),
)

_STEP = stat(
    About("Step", "Optimizer steps so far, of the furthest environment.", COUNT, NONE_YET),
    Query(highest(chosen(metrics.STEP))),
)

_SPEED = stat(
    About("Steps per second", "Of all environments and ranks together, within epochs.", PER_SECOND, NONE_YET),
    Query(summed(f"rate({chosen(metrics.STEP_DURATION, part='count')}[{RATE}])")),
)

_AGE = stat(
    About(
        "Age of the last step",
        "Time since the newest step that Prometheus knows of. Steps arrive with each export, once a minute unless "
        "OTEL_METRIC_EXPORT_INTERVAL says otherwise. A run that has ended grows old too.",
        SECONDS,
        "No step in the last hour: the run has ended or has not begun",
        rising(120, 300),
    ),
    Query(f"time() - max(max_over_time(timestamp({chosen(metrics.STEP)})[1h:1m]))", instant=True),
)

_BEST = stat(
    About("Best validation accuracy", "Highest in this time, of any environment.", FRACTION, NOT_VALIDATED),
    Query(highest(f"max_over_time({chosen(metrics.ACCURACY, {attr.PHASE: 'validation'})}[$__range])"), instant=True),
)

_HEALTH = stat(
    About(
        "Gradient health",
        "0 (broken) to 1 (healthy), the worst model's. Below 0.5 gradients vanish, explode or are not finite in many "
        "layers; the board Gradients has them.",
        NUMBER,
        UNWATCHED,
        falling(0.5, 0.8),
    ),
    Query(lowest(chosen(metrics.GRADIENT_HEALTH))),
    background=True,
)

_FLAGS_NOW = stat(
    About(
        "Red flags",
        "Findings that hold now, over all environments. Which, is below.",
        COUNT,
        NOT_VALIDATED,
        rising(1, 3),
    ),
    Query(summed(chosen(metrics.RED_FLAG))),
    background=True,
)

_OVERHEAD_NOW = stat(
    About(
        "Overhead",
        "Share of wall time that telemetry takes from training, the worst environment's. overhead_budget bounds it.",
        *OVERHEAD,
    ),
    Query(highest(chosen(metrics.OVERHEAD_RATIO))),
)

NOW: Final = Row(
    "Now",
    (
        (3, _EPOCH),
        (3, _STEP),
        (3, _SPEED),
        (3, _AGE),
        (3, _BEST),
        (3, _HEALTH),
        (3, _FLAGS_NOW),
        (3, _OVERHEAD_NOW),
    ),
    4,
)
