"""Seeds: what becomes of what was grafted, and why?"""

from typing import Final

from dashboards import variables
from dashboards.board import Board, Row, legend
from dashboards.boards.blueprints import success
from dashboards.boards.shared import newest
from dashboards.grafana import (
    COUNT,
    FRACTION,
    GREEN,
    NUMBER,
    ORANGE,
    RED,
    SECONDS,
    About,
    Query,
    bars,
    falling,
    lines,
    one_trace,
    rising,
    stat,
)
from dashboards.links import of_series, to_traces
from dashboards.promql import Matcher, among, chosen, grown, latest, share, summed
from dashboards.recording import GONE, KEPT
from nissa.events import Stage
from nissa.seeds.stages import ALIVE
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, spans

_CHOICE: Final = (variables.SERVICE, variables.RUN, variables.RANK, variables.ENVIRONMENT, variables.BLUEPRINT)
_NO_GATE: Final = "No gate judged a seed in this time"
_NO_SEED: Final = "No seed germinated in this time"
_SUCCESS: Final = falling(0.5, 0.7)
_THIS_RUN: Final = {attr.RUN_ID: "${run}"}


def _changes(*to: str) -> str:
    """Return the expression that counts transitions of seeds to one of these stages, over all processes of the run."""
    return summed(latest(chosen(metrics.SEED_TRANSITIONS, {attr.SEED_TO: among(*to)})))


_GERMINATED = stat(
    About("Germinated", "Seeds so far, whatever became of them.", COUNT, _NO_SEED),
    Query(summed(latest(chosen(metrics.SEED_COUNT))), instant=True),
)

_ALIVE = stat(
    About(
        "Alive",
        "Seeds that grow now: germinated, in training, blended in or on probation. None in a long-running run means that "
        "nothing is tried any more.",
        COUNT,
        _NO_SEED,
        ((None, ORANGE), (1, GREEN)),
    ),
    Query(summed(chosen(metrics.SEED_COUNT, {attr.SEED_STAGE: among(*sorted(stage.label for stage in ALIVE))}))),
)

_KEPT_NOW = stat(
    About("Fossilized", "Seeds that became part of their host.", COUNT, "None so far"),
    Query(_changes(KEPT), instant=True),
)

_GONE_NOW = stat(
    About(
        "Culled", "Seeds that were removed. More of them than fossilized ones raises an alert.", COUNT, "None so far"
    ),
    Query(_changes(GONE), instant=True),
)

_SUCCESS_NOW = stat(
    About(
        "Success",
        "Fossilized among fossilized and culled seeds.",
        FRACTION,
        "No seed's life has ended",
        _SUCCESS,
    ),
    Query(share(_changes(KEPT), _changes(KEPT, GONE)), instant=True),
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
        _NO_SEED,
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
        links=(to_traces("Seeds of this run", spans.SEED, _THIS_RUN),),
    ),
    Query(summed(latest(chosen(metrics.SEED_REFUSED))), instant=True),
)

_NOW: Final = Row(
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


_BY_STAGE = lines(
    About("Seeds by stage", "Each seed counts in the one stage that it is in.", COUNT, _NO_SEED),
    Query(f"{summed(chosen(metrics.SEED_COUNT), attr.SEED_STAGE)} > 0", legend(attr.SEED_STAGE)),
    stacked=True,
)

_FUNNEL = bars(
    About(
        "Funnel",
        "How many seeds came how far. A seed that goes back to blending counts there again.",
        COUNT,
        _NO_SEED,
        links=(to_traces("Seeds of this run", spans.SEED, _THIS_RUN),),
    ),
    Query(summed(latest(chosen(metrics.SEED_COUNT))), f"1 {Stage.GERMINATED.label}", instant=True),
    *(
        Query(_changes(stage.label), f"{place} {stage.label}", instant=True)
        for place, stage in enumerate(
            (Stage.TRAINING, Stage.BLENDING, Stage.PROBATIONARY, Stage.FOSSILIZED, Stage.CULLED), start=2
        )
    ),
)

_CHANGES = lines(
    About("Transitions", "Stage changes, when they were seen.", COUNT, "No seed changed its stage in this time"),
    Query(
        f"{summed(grown(chosen(metrics.SEED_TRANSITIONS), '$__interval'), attr.SEED_FROM, attr.SEED_TO)} > 0",
        legend(attr.SEED_FROM, attr.SEED_TO),
    ),
    stacked=True,
    bars=True,
)

_FAILED = bars(
    About(
        "Failed checks by gate",
        "On what gates decided against seeds. One check far ahead of all others is what to tune or to fix.",
        COUNT,
        "No gate has failed a seed",
        links=(to_traces("Seeds of this run", spans.SEED, _THIS_RUN),),
    ),
    Query(
        f"sort_desc({summed(latest(chosen(metrics.GATE_FAILED_CHECKS)), attr.GATE_NAME, attr.GATE_CHECK)})",
        legend(attr.GATE_NAME, attr.GATE_CHECK),
        instant=True,
    ),
)


def _judged(given: dict[str, str]) -> str:
    return summed(latest(chosen(metrics.GATE_EVALUATIONS, given)), attr.GATE_NAME)


_PASSED = bars(
    About(
        "Pass rate by gate",
        "Decisions for a seed among all decisions. A gate that lets all or none through decides nothing.",
        FRACTION,
        _NO_GATE,
    ),
    Query(share(_judged({attr.GATE_PASSED: "true"}), _judged({})), legend(attr.GATE_NAME), instant=True),
    most=1,
)

_LIFESPANS = bars(
    About(
        "Lifespans",
        "Seeds by the epochs that they lived; each bar ends at its number.",
        COUNT,
        "No seed's life has ended",
    ),
    Query(
        f"sum by (le) ({latest(chosen(metrics.SEED_LIFESPAN, part='bucket'))})", "{{le}}", instant=True, form="heatmap"
    ),
)

_SUCCESS_BY = bars(
    About(
        "Success by blueprint",
        "Fossilized among fossilized and culled seeds. A click leads to the traces of the blueprint's seeds.",
        FRACTION,
        "No seed's life has ended",
        _SUCCESS,
        links=(
            to_traces(
                "Seeds of this blueprint", spans.SEED, _THIS_RUN | {attr.BLUEPRINT_ID: of_series(attr.BLUEPRINT_ID)}
            ),
            to_traces(
                "Those that were culled",
                spans.SEED,
                _THIS_RUN | {attr.BLUEPRINT_ID: of_series(attr.BLUEPRINT_ID), attr.SEED_OUTCOME: GONE},
            ),
        ),
    ),
    Query(success(), legend(attr.BLUEPRINT_ID), instant=True),
    most=1,
)

_ALPHA = lines(
    About("Alpha", "How far the seed in a slot is blended in.", FRACTION, "No seed was blended in"),
    Query(chosen(metrics.SEED_ALPHA), legend(attr.SEED_SLOT, attr.ENV_ID)),
)

_RATIO = lines(
    About(
        "Gradients of a seed over those of its host",
        "Root mean squares. Between 0.5 and 2 a seed learns about as fast as its host.",
        NUMBER,
        "No seed grows, or gradients are not watched",
        ((None, ORANGE), (0.5, GREEN), (2, ORANGE)),
    ),
    Query(chosen(metrics.SEED_GRADIENT_RATIO), legend(attr.SEED_SLOT, attr.ENV_ID)),
)

_STAGES = chosen(pipeline.SPAN_SECONDS, {pipeline.SPAN_NAME: Matcher("=~", f"{spans.SEED_STAGE_PREFIX}.+")})
_TIME_IN = lines(
    About(
        "Time in a stage",
        "Median of all stages that ended so far, from the collector's count of spans. A dot is one of them, and leads to its "
        "trace.",
        SECONDS,
        "No stage has ended in this time",
        links=(to_traces("Seeds of this run", spans.SEED, _THIS_RUN),),
    ),
    Query(
        f"histogram_quantile(0.5, {summed(_STAGES, pipeline.SPAN_NAME)})", legend(pipeline.SPAN_NAME), exemplars=True
    ),
)

_UNSAMPLED = stat(
    About(
        "Seeds without a trace",
        "Seeds whose trace the sampler dropped. OTEL_TRACES_SAMPLER decides.",
        COUNT,
        "None: each seed has its trace",
        ((None, GREEN), (1, ORANGE)),
    ),
    Query(summed(latest(chosen(metrics.SEED_UNSAMPLED))), instant=True),
)

_LIST = newest(spans.SEED, "Lives of seeds", "Jaeger knows of no seed of this run in this time", _CHOICE)

_LIFE = one_trace(
    About("Life of a seed", "Its stages and the gates that judged them.", NUMBER, "Choose a seed on the left"),
    variables.TRACE["name"],
)

BOARD: Final = Board(
    "nissa-seeds",
    "Nissa: Seeds",
    "What becomes of seeds, how long does it take, and which gate stops them? From here to their traces.",
    (*_CHOICE, variables.TRACE),
    (
        _NOW,
        Row("Stages", ((9, _BY_STAGE), (6, _FUNNEL), (9, _CHANGES))),
        Row("Gates", ((10, _FAILED), (7, _PASSED), (7, _SUCCESS_BY))),
        Row("Growing", ((8, _ALPHA), (8, _RATIO), (8, _TIME_IN))),
        Row("Ends", ((18, _LIFESPANS), (6, _UNSAMPLED))),
        Row("Lives", ((9, _LIST), (15, _LIFE)), 12),
    ),
)
