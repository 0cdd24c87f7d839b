"""Seeds, as they are now."""

from typing import Final

from dashboards.board import Row
from dashboards.grafana import (
    COUNT,
    FRACTION,
    GREEN,
    NUMBER,
    ORANGE,
    RED,
    About,
    Query,
    falling,
    rising,
    stat,
)
from dashboards.links import to_traces
from dashboards.promql import among, chosen, latest, share, summed
from dashboards.recording import GONE, KEPT
from nissa.events import Stage
from nissa.seeds.stages import ALIVE
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, spans

NO_SEED: Final = "No seed germinated in this time"
SUCCESS: Final = falling(0.5, 0.7)
THIS_RUN: Final = {attr.RUN_ID: "${run}"}


def changes(*to: str) -> str:
    """Return how many seeds came into one of these stages, of all processes of the run."""
    return summed(latest(chosen(metrics.SEED_TRANSITIONS, {attr.SEED_TO: among(*to)})))


_GERMINATED = stat(
    About("Germinated", "Seeds so far, whatever became of them.", COUNT, NO_SEED),
    Query(summed(latest(chosen(metrics.SEED_COUNT))), instant=True),
)

_ALIVE = stat(
    About(
        "Alive",
        "Seeds that grow now: germinated, in training, blended in or on probation. None in a long-running run means that "
        "nothing is tried any more.",
        COUNT,
        NO_SEED,
        ((None, ORANGE), (1, GREEN)),
    ),
    Query(summed(chosen(metrics.SEED_COUNT, {attr.SEED_STAGE: among(*sorted(stage.label for stage in ALIVE))}))),
)

_KEPT_NOW = stat(
    About("Fossilized", "Seeds that became part of their host.", COUNT, "None so far"),
    Query(changes(KEPT), instant=True),
)

_GONE_NOW = stat(
    About(
        "Culled", "Seeds that were removed. More of them than fossilized ones raises an alert.", COUNT, "None so far"
    ),
    Query(changes(GONE), instant=True),
)

_SUCCESS_NOW = stat(
    About(
        "Success",
        "Fossilized among fossilized and culled seeds.",
        FRACTION,
        "No seed's life has ended",
        SUCCESS,
    ),
    Query(share(changes(KEPT), changes(KEPT, GONE)), instant=True),
    background=True,
)

_LIFESPAN_NOW = stat(
    About(
        "Mean lifespan",
        "In epochs, of seeds whose life has ended. Below 5 they are hardly given a chance.",
        NUMBER,
        "No seed's life has ended",
        falling(5, 10),
    ),
    Query(
        f"{summed(latest(chosen(metrics.SEED_LIFESPAN, part='sum')))}"
        f" / {summed(latest(chosen(metrics.SEED_LIFESPAN, part='count')))}",
        instant=True,
    ),
)

_DORMANT = stat(
    About(
        "Dormant",
        "Share of slots that are dormant again after a seed was culled. Above 90 % there is little left that grows.",
        FRACTION,
        NO_SEED,
        rising(0.8, 0.9),
    ),
    Query(
        share(
            summed(chosen(metrics.SEED_COUNT, {attr.SEED_STAGE: Stage.DORMANT.label})),
            summed(chosen(metrics.SEED_COUNT)),
        )
    ),
)

_REFUSED = stat(
    About(
        "Refused transitions",
        "Stage changes that the table does not allow. Any is a bug in the policy; the seed's trace says which.",
        COUNT,
        "None, as it should be",
        ((None, GREEN), (1, RED)),
        links=(to_traces("Seeds of this run", spans.SEED, THIS_RUN),),
    ),
    Query(summed(latest(chosen(metrics.SEED_REFUSED))), instant=True),
)

NOW: Final = Row(
    "Now",
    (
        (3, _GERMINATED),
        (3, _ALIVE),
        (3, _KEPT_NOW),
        (3, _GONE_NOW),
        (3, _SUCCESS_NOW),
        (3, _LIFESPAN_NOW),
        (3, _DORMANT),
        (3, _REFUSED),
    ),
    4,
)
