"""Blueprints: which are worth trying again?"""

from typing import Final

from dashboards import variables
from dashboards.board import Board, Row, legend
from dashboards.grafana import COUNT, FRACTION, NUMBER, About, Query, bars, falling, lines, rising, table
from dashboards.links import of_series, to_traces
from dashboards.promql import among, chosen, latest, share, summed
from dashboards.recording import GONE, KEPT, SUCCESS
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus, spans

_BLUEPRINT: Final = attr.BLUEPRINT_ID
_NO_END: Final = "No seed's life has ended"
_NO_ANALYTICS: Final = "No seed germinated in this time, or nothing was measured of its blueprint"
_GOOD: Final = falling(0.25, 0.5)
_COST: Final = rising(2, 5)
_SEEDS_OF_IT: Final = to_traces("Its seeds", spans.SEED, {_BLUEPRINT: of_series(_BLUEPRINT)})


def _ended(*how: str) -> str:
    return summed(latest(chosen(metrics.SEED_TRANSITIONS, {attr.SEED_TO: among(*how)})), _BLUEPRINT)


def success() -> str:
    """Return the share of fossilized among fossilized and culled seeds, by blueprint; of replayed runs too."""
    return share(_ended(KEPT), _ended(KEPT, GONE))


def _mean(spec: metrics.MetricSpec) -> str:
    """Return a blueprint's mean over the chosen runs."""
    return f"avg by ({prometheus.label(_BLUEPRINT)}) ({latest(chosen(spec))})"


_TABLE = table(
    About(
        "Blueprints",
        "All that is known of each in this time, over the chosen runs.",
        COUNT,
        "No seed germinated in this time",
    ),
    *(
        Query(expression, instant=True, form="table")
        for expression in (
            f"sort_desc({success()})",
            _ended(KEPT),
            _ended(GONE),
            _mean(metrics.BLUEPRINT_ACCURACY_DELTA),
            _mean(metrics.BLUEPRINT_COMPUTE_COST),
            _mean(metrics.BLUEPRINT_PARAMETERS),
        )
    ),
    columns={
        prometheus.label(_BLUEPRINT): "Blueprint",
        "Value #A": "Success",
        "Value #B": "Fossilized",
        "Value #C": "Culled",
        "Value #D": "Accuracy",
        "Value #E": "Compute",
        "Value #F": "Parameters",
    },
    by=(f"Success={FRACTION}", f"Accuracy={FRACTION}", f"Compute={NUMBER}"),
)

_SUCCESS = bars(
    About("Success", "Fossilized among fossilized and culled seeds.", FRACTION, _NO_END, _GOOD, (_SEEDS_OF_IT,)),
    Query(f"sort_desc({success()})", legend(_BLUEPRINT), instant=True),
    most=1,
)

_DELTA = bars(
    About(
        "Accuracy that it brings",
        "Mean improvement of its fossilized seeds; a point is 1 %.",
        FRACTION,
        "No seed fossilized, or none reported an improvement",
        falling(0, 0.005),
        (_SEEDS_OF_IT,),
    ),
    Query(f"sort_desc({_mean(metrics.BLUEPRINT_ACCURACY_DELTA)})", legend(_BLUEPRINT), instant=True),
)

_COMPUTE = bars(
    About(
        "Compute that it takes",
        "Of a network with one seed of it, as a multiple of its compute without.",
        NUMBER,
        "Not measured: run.analytics.measure() does",
        _COST,
    ),
    Query(f"sort_desc({_mean(metrics.BLUEPRINT_COMPUTE_COST)})", legend(_BLUEPRINT), instant=True),
)

_PARAMETERS = bars(
    About("Parameters", "Mean of its seeds.", COUNT, _NO_ANALYTICS),
    Query(f"sort_desc({_mean(metrics.BLUEPRINT_PARAMETERS)})", legend(_BLUEPRINT), instant=True),
)

_TREND = lines(
    About(
        "Success over time",
        "As it was recorded while runs went on, by run. What is replayed from files was not recorded.",
        FRACTION,
        "No seed's life ended while Prometheus was listening",
        _GOOD,
    ),
    Query(chosen(SUCCESS), legend(_BLUEPRINT, attr.RUN_ID)),
)

_DELTAS = lines(
    About("Accuracy over time", "Mean improvement so far, by run.", FRACTION, "No seed fossilized"),
    Query(chosen(metrics.BLUEPRINT_ACCURACY_DELTA), legend(_BLUEPRINT, attr.RUN_ID)),
)

_FATES = lines(
    About("Lives that ended", "So far, by blueprint and outcome.", COUNT, _NO_END),
    Query(
        summed(chosen(metrics.SEED_LIFESPAN, part="count"), _BLUEPRINT, attr.SEED_OUTCOME),
        legend(_BLUEPRINT, attr.SEED_OUTCOME),
    ),
    stacked=True,
)

_LIFESPANS = bars(
    About(
        "Mean lifespan",
        "In epochs, by outcome. Culled early is cheap; culled late was hope.",
        NUMBER,
        _NO_END,
    ),
    Query(
        f"{summed(latest(chosen(metrics.SEED_LIFESPAN, part='sum')), _BLUEPRINT, attr.SEED_OUTCOME)}"
        f" / {summed(latest(chosen(metrics.SEED_LIFESPAN, part='count')), _BLUEPRINT, attr.SEED_OUTCOME)}",
        legend(_BLUEPRINT, attr.SEED_OUTCOME),
        instant=True,
    ),
)

_CHECKS = bars(
    About(
        "Failed checks",
        "What its seeds failed on, over all gates.",
        COUNT,
        "No gate has failed a seed",
        links=(_SEEDS_OF_IT,),
    ),
    Query(
        f"sort_desc({summed(latest(chosen(metrics.GATE_FAILED_CHECKS)), _BLUEPRINT, attr.GATE_CHECK)})",
        legend(_BLUEPRINT, attr.GATE_CHECK),
        instant=True,
    ),
)

_TRACES = bars(
    About(
        "Traces",
        "Lives that Jaeger has, by outcome, from the collector's count of spans; 'interrupted' were resumed elsewhere, "
        "or never.",
        COUNT,
        "No seed's life has ended, or the sampler dropped them all",
        links=(
            to_traces(
                "These seeds",
                spans.SEED,
                {_BLUEPRINT: of_series(_BLUEPRINT), attr.SEED_OUTCOME: of_series(attr.SEED_OUTCOME)},
            ),
        ),
    ),
    Query(
        summed(latest(chosen(pipeline.SPANS, {pipeline.SPAN_NAME: spans.SEED})), _BLUEPRINT, attr.SEED_OUTCOME),
        legend(_BLUEPRINT, attr.SEED_OUTCOME),
        instant=True,
    ),
)

BOARD: Final = Board(
    "nissa-blueprints",
    "Nissa: Blueprints",
    "Which blueprints succeed, what do they bring, and what do they cost?",
    (
        variables.SERVICE,
        variables.RUNS,
        variables.RANK,
        variables.ENVIRONMENT,
        variables.BLUEPRINT,
    ),
    (
        Row("All of them", ((24, _TABLE),), 9),
        Row("What they bring and cost", ((6, _SUCCESS), (6, _DELTA), (6, _COMPUTE), (6, _PARAMETERS))),
        Row("Over time", ((8, _TREND), (8, _DELTAS), (8, _FATES))),
        Row("Why", ((8, _CHECKS), (8, _LIFESPANS), (8, _TRACES))),
    ),
)
