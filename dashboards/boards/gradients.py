"""Gradients: which layers learn, and which are in trouble?"""

from typing import Final

from dashboards import variables
from dashboards.board import Board, Row, legend
from dashboards.grafana import (
    COUNT,
    FRACTION,
    GREEN,
    NUMBER,
    ORANGE,
    RED,
    SCIENTIFIC,
    About,
    Json,
    Query,
    grid,
    heatmap,
    lines,
    stat,
    table,
)
from dashboards.links import to_traces
from dashboards.promql import chosen, grown, highest, latest, quantile, summed
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus, spans

_RATE: Final = "$__rate_interval"
_MODEL: Final = (attr.RANK, attr.ENV_ID, attr.MODEL_NAME)
_PARAMETER: Final = (attr.PARAMETER_NAME, *_MODEL)
_UNWATCHED: Final = "Gradients are not watched, or were not sampled in this time"
_UNMEASURED: Final = "The profile does not measure this: gradients.track_... turns it on"
_MOST_LINES: Final = 10
_VANISHED: Final = 0.9
"""Share of elements below the threshold from which a layer counts as dead; of exploding ones a tenth is plenty."""
_EXPLODED: Final = 0.1


def _worst(selector: str) -> str:
    """Return the parameters with the highest values: more lines than these nobody can tell apart."""
    return f"topk({_MOST_LINES}, {highest(selector, attr.PARAMETER_NAME)})"


def _count_above(selector: str, threshold: float) -> str:
    """Return how many parameters are above a threshold: zero where all are below, nothing where none was measured."""
    return f"sum({highest(selector, attr.PARAMETER_NAME)} > bool {threshold:g})"


_TROUBLE = ((None, GREEN), (1, ORANGE), (3, RED))

_GLOBAL_NOW = stat(
    About(
        "Norm of all gradients", "The largest model's.", SCIENTIFIC, _UNWATCHED, ((None, GREEN), (5, ORANGE), (10, RED))
    ),
    Query(highest(chosen(metrics.GRADIENT_GLOBAL_NORM))),
)

_VARIATION = stat(
    About(
        "Variation of the norm",
        "Standard deviation over mean within 5 minutes. Above 2, single batches dominate.",
        NUMBER,
        _UNWATCHED,
        ((None, GREEN), (0.5, ORANGE), (2, RED)),
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
        f"Parameters of which over {_VANISHED:.0%} of the gradient is below the vanishing threshold.",
        COUNT,
        _UNWATCHED,
        _TROUBLE,
    ),
    Query(_count_above(chosen(metrics.GRADIENT_VANISHING_FRACTION), _VANISHED)),
    background=True,
)

_EXPLODING_NOW = stat(
    About(
        "Exploding layers",
        f"Parameters of which over {_EXPLODED:.0%} of the gradient is above the exploding threshold.",
        COUNT,
        _UNWATCHED,
        _TROUBLE,
    ),
    Query(_count_above(chosen(metrics.GRADIENT_EXPLODING_FRACTION), _EXPLODED)),
    background=True,
)

_NONFINITE_NOW = stat(
    About(
        "Elements that are not finite",
        "NaN and infinite elements of sampled gradients, in all of the run so far.",
        COUNT,
        _UNWATCHED,
        ((None, GREEN), (1, ORANGE), (6, RED)),
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
        ((None, RED), (0.1, ORANGE), (0.5, GREEN)),
    ),
    Query(chosen(metrics.CLIP_FACTOR)),
)

_GLOBAL = lines(
    About(
        "Norm of all gradients",
        "By model, with what it was before it was clipped where it was.",
        SCIENTIFIC,
        _UNWATCHED,
        ((None, GREEN), (5, ORANGE), (10, RED)),
        links=(to_traces("Steps of this run", spans.STEP, {attr.RUN_ID: "${run}"}),),
    ),
    Query(chosen(metrics.GRADIENT_GLOBAL_NORM), legend(*_MODEL)),
    Query(chosen(metrics.CLIP_NORM), f"before clipping {legend(*_MODEL)}"),
    log=True,
)

_NORMS = lines(
    About(
        "Largest norms",
        f"The {_MOST_LINES} parameters with the largest gradients at each time.",
        SCIENTIFIC,
        _UNWATCHED,
    ),
    Query(_worst(chosen(metrics.GRADIENT_NORM)), legend(attr.PARAMETER_NAME)),
    log=True,
)

_QUANTILES = lines(
    About(
        "Quantiles of the absolute values",
        "Over the chosen parameters the largest of each quantile. Choose one parameter to see its own.",
        SCIENTIFIC,
        "The profile measures no percentiles: gradients.percentiles names them",
    ),
    Query(highest(chosen(metrics.GRADIENT_QUANTILE), attr.QUANTILE), legend(attr.QUANTILE)),
    log=True,
)

_DISTRIBUTION = heatmap(
    About(
        "Absolute values",
        "How the elements of the chosen parameters are distributed, from the native histogram. A dot is one step's "
        "exemplar, and leads to its trace. A band that sinks is a network that stops learning; one that splits, "
        "layers that part ways.",
        SCIENTIFIC,
        _UNMEASURED,
    ),
    Query(f"sum(increase({chosen(metrics.GRADIENT_MAGNITUDE)}[{_RATE}]))", exemplars=True, form="heatmap"),
)

_SPREAD = lines(
    About(
        "Spread of the absolute values",
        "From the native histogram of the chosen parameters: half of all elements are below the middle line.",
        SCIENTIFIC,
        _UNMEASURED,
    ),
    *(Query(quantile(q, metrics.GRADIENT_MAGNITUDE, _RATE), f"{q:.0%}") for q in (0.01, 0.5, 0.99)),
    log=True,
)

_BY_TIME = grid(
    About(
        "Norm by parameter and time",
        "Decimal logarithm of the norm: 0 is 1, -3 is a thousandth. A row that turns blue has stopped learning, one that "
        "turns red is exploding.",
        NUMBER,
        _UNWATCHED,
        ((None, "dark-blue"), (-7, "blue"), (-5, "light-blue"), (-3, GREEN), (0, "yellow"), (1, ORANGE), (2, RED)),
    ),
    Query(f"log10({highest(chosen(metrics.GRADIENT_NORM), attr.PARAMETER_NAME)})", legend(attr.PARAMETER_NAME)),
)

_NONFINITE = lines(
    About(
        "Elements that are not finite",
        "NaN and infinite elements in sampled gradients, when they were seen.",
        COUNT,
        "Every element of every sampled gradient was finite",
        ((None, GREEN), (1, RED)),
    ),
    Query(
        f"{summed(grown(chosen(metrics.GRADIENT_NONFINITE), '$__interval'), attr.PARAMETER_NAME)} > 0",
        legend(attr.PARAMETER_NAME),
    ),
    bars=True,
)


def _share(title: str, what: str, spec: metrics.MetricSpec, orange: float, red: float) -> Json:
    return lines(
        About(
            title,
            f"The {_MOST_LINES} parameters with the largest share of {what}.",
            FRACTION,
            _UNWATCHED,
            ((None, GREEN), (orange, ORANGE), (red, RED)),
        ),
        Query(_worst(chosen(spec)), legend(attr.PARAMETER_NAME)),
    )


_VANISHING = _share(
    "Vanishing", "elements below the vanishing threshold", metrics.GRADIENT_VANISHING_FRACTION, 0.5, _VANISHED
)
_EXPLODING = _share(
    "Exploding", "elements above the exploding threshold", metrics.GRADIENT_EXPLODING_FRACTION, 0.01, _EXPLODED
)
_ZEROS = _share("Zeros", "exact zeros, as dead units have", metrics.GRADIENT_ZERO_FRACTION, 0.5, 0.95)


def _of_parameters(title: str, description: str, spec: metrics.MetricSpec, empty: str = _UNWATCHED) -> Json:
    return lines(
        About(title, f"{description} The {_MOST_LINES} largest.", SCIENTIFIC, empty),
        Query(_worst(chosen(spec)), legend(attr.PARAMETER_NAME)),
    )


_MEANS = lines(
    About(
        "Means",
        f"The {_MOST_LINES} parameters whose mean is furthest from zero.",
        SCIENTIFIC,
        _UNWATCHED,
    ),
    Query(_worst(f"abs({chosen(metrics.GRADIENT_MEAN)})"), legend(attr.PARAMETER_NAME)),
)
_STDS = _of_parameters("Standard deviations", "How far elements scatter.", metrics.GRADIENT_STD)
_MAXIMA = _of_parameters("Largest elements", "Largest finite absolute value.", metrics.GRADIENT_ABS_MAX)
_WEIGHTS = _of_parameters("Weights", "Norm of a parameter before the step.", metrics.WEIGHT_NORM, _UNMEASURED)

_UPDATES = lines(
    About(
        "Update over weight",
        f"Norm of a step's change of a parameter over the norm it had; the {_MOST_LINES} largest. Around 0.001 is usual; "
        "above 0.1 a step overwrites what was learned.",
        SCIENTIFIC,
        "The profile does not measure updates: gradients.update_ratios turns it on",
        ((None, GREEN), (0.01, ORANGE), (0.1, RED)),
    ),
    Query(_worst(chosen(metrics.UPDATE_RATIO)), legend(attr.PARAMETER_NAME)),
    log=True,
)


def _column(selector: str) -> str:
    return highest(latest(selector), attr.PARAMETER_NAME)


_LAYERS = table(
    About(
        "Layers",
        "The last sample of each chosen parameter, worst first: sort by any column.",
        SCIENTIFIC,
        _UNWATCHED,
        links=(to_traces("Steps of this run", spans.STEP, {attr.RUN_ID: "${run}"}),),
    ),
    *(
        Query(expression, instant=True, form="table")
        for expression in (
            f"sort_desc({_column(chosen(metrics.GRADIENT_VANISHING_FRACTION))})",
            _column(chosen(metrics.GRADIENT_EXPLODING_FRACTION)),
            _column(chosen(metrics.GRADIENT_NONFINITE)),
            _column(chosen(metrics.GRADIENT_NORM)),
            _column(chosen(metrics.WEIGHT_NORM)),
            _column(chosen(metrics.UPDATE_RATIO)),
        )
    ),
    columns={
        prometheus.label(attr.PARAMETER_NAME): "Parameter",
        "Value #A": "Vanishing",
        "Value #B": "Exploding",
        "Value #C": "Not finite",
        "Value #D": "Norm",
        "Value #E": "Weight",
        "Value #F": "Update",
    },
    by=(f"Vanishing={FRACTION}", f"Exploding={FRACTION}", f"Not finite={COUNT}"),
)

BOARD: Final = Board(
    "nissa-gradients",
    "Nissa: Gradients",
    "Which layers learn, and which vanish, explode or break?",
    (
        variables.SERVICE,
        variables.RUN,
        variables.RANK,
        variables.ENVIRONMENT,
        variables.MODEL,
        variables.PARAMETER,
    ),
    (
        Row(
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
        ),
        Row("Worst layers", ((24, _LAYERS),), 9),
        Row("Norms", ((12, _GLOBAL), (12, _NORMS))),
        Row("Distribution", ((12, _DISTRIBUTION), (6, _SPREAD), (6, _QUANTILES)), 10),
        Row("Parameters by time", ((24, _BY_TIME),), 14),
        Row("Trouble", ((6, _NONFINITE), (6, _VANISHING), (6, _EXPLODING), (6, _ZEROS))),
        Row("Updates", ((12, _UPDATES), (12, _WEIGHTS))),
        Row("Moments", ((8, _MEANS), (8, _STDS), (8, _MAXIMA))),
    ),
)
