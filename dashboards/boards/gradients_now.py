"""Gradients, as they are now."""

from typing import Final

from dashboards.board import Row
from dashboards.boards.shared import UNWATCHED
from dashboards.grafana import (
    COUNT,
    NUMBER,
    SCIENTIFIC,
    About,
    Json,
    Query,
    falling,
    rising,
    stat,
)
from dashboards.promql import chosen, highest, latest, summed
from nissa.semconv import attributes as attr
from nissa.semconv import metrics

VANISHED: Final = 0.9
"""Share of elements below the threshold from which a layer counts as dead; of exploding ones a tenth is plenty."""


EXPLODED: Final = 0.1


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


def _layers(title: str, bound: str, fractions: str, threshold: float) -> Json:
    """Show how many parameters have too large a part of their gradient beyond a bound."""
    description = f"Parameters of which over {threshold:.0%} of the gradient is {bound} threshold."
    count = f"sum({highest(fractions, attr.PARAMETER_NAME)} > bool {threshold:g})"  # none where none was measured
    return stat(About(title, description, COUNT, UNWATCHED, rising(1, 3)), Query(count), background=True)


_DEAD_NOW = _layers("Vanishing layers", "below the vanishing", chosen(metrics.GRADIENT_VANISHING_FRACTION), VANISHED)

_EXPLODING_NOW = _layers(
    "Exploding layers", "above the exploding", chosen(metrics.GRADIENT_EXPLODING_FRACTION), EXPLODED
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
