"""Gradients, as they are now."""

from typing import Final

from dashboards.board import Row
from dashboards.grafana import (
    COUNT,
    NUMBER,
    SCIENTIFIC,
    About,
    Query,
    falling,
    rising,
    stat,
)
from dashboards.promql import chosen, highest, latest, summed
from nissa.semconv import attributes as attr
from nissa.semconv import metrics

UNWATCHED: Final = "Gradients are not watched, or were not sampled in this time"
VANISHED: Final = 0.9
"""Share of elements below the threshold from which a layer counts as dead; of exploding ones a tenth is plenty."""


EXPLODED: Final = 0.1


def _count_above(selector: str, threshold: float) -> str:
    """Return how many parameters are above a threshold: zero where all are below, nothing where none was measured."""
    return f"sum({highest(selector, attr.PARAMETER_NAME)} > bool {threshold:g})"


_TROUBLE = rising(1, 3)

_GLOBAL_NOW = stat(
    About("Norm of all gradients", "The largest model's.", SCIENTIFIC, UNWATCHED, rising(5, 10)),
    Query(highest(chosen(metrics.GRADIENT_GLOBAL_NORM))),
)

_VARIATION = stat(
    About(
        "Variation of the norm",
        "Standard deviation over mean within 5 minutes. Above 2, single batches dominate.",
        NUMBER,
        UNWATCHED,
        rising(0.5, 2),
    ),
    Query(
        highest(
            f"stddev_over_time({chosen(metrics.GRADIENT_GLOBAL_NORM)}[5m])"
            f" / avg_over_time({chosen(metrics.GRADIENT_GLOBAL_NORM)}[5m])"
        )
    ),
)

_DEAD_NOW = stat(
    About(
        "Vanishing layers",
        f"Parameters of which over {VANISHED:.0%} of the gradient is below the vanishing threshold.",
        COUNT,
        UNWATCHED,
        _TROUBLE,
    ),
    Query(_count_above(chosen(metrics.GRADIENT_VANISHING_FRACTION), VANISHED)),
    background=True,
)

_EXPLODING_NOW = stat(
    About(
        "Exploding layers",
        f"Parameters of which over {EXPLODED:.0%} of the gradient is above the exploding threshold.",
        COUNT,
        UNWATCHED,
        _TROUBLE,
    ),
    Query(_count_above(chosen(metrics.GRADIENT_EXPLODING_FRACTION), EXPLODED)),
    background=True,
)

_NONFINITE_NOW = stat(
    About(
        "Elements that are not finite",
        "NaN and infinite elements of sampled gradients, in all of the run so far.",
        COUNT,
        UNWATCHED,
        rising(1, 6),
    ),
    Query(summed(latest(chosen(metrics.GRADIENT_NONFINITE))), instant=True),
    background=True,
)

_CLIP_FACTOR_NOW = stat(
    About(
        "Clipping",
        "What gradients are multiplied with, at most 1. Far below 1 at each step, the clip norm sets the step and not "
        "the learning rate.",
        NUMBER,
        "Gradients are not clipped through Nissa",
        falling(0.1, 0.5),
    ),
    Query(chosen(metrics.CLIP_FACTOR)),
)

NOW: Final = Row(
    "Now",
    (
        (4, _GLOBAL_NOW),
        (4, _VARIATION),
        (4, _DEAD_NOW),
        (4, _EXPLODING_NOW),
        (4, _NONFINITE_NOW),
        (4, _CLIP_FACTOR_NOW),
    ),
    4,
)
