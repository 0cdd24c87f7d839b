"""Gradients: which layers learn, and which are in trouble?"""

from typing import Final

from dashboards import variables
from dashboards.board import Board, Row, legend
from dashboards.boards.shared import UNWATCHED
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
    falling,
    grid,
    heatmap,
    lines,
    rising,
    stat,
    table,
)
from dashboards.links import to_traces
from dashboards.promql import Matcher, chosen, grown, highest, latest, summed
from dashboards.recording import MAGNITUDE
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus, spans

_RATE: Final = "$__rate_interval"
_MODEL: Final = (attr.RANK, attr.ENV_ID, attr.MODEL_NAME)
_NO_HISTOGRAM: Final = (
    "The profile counts no histograms (gradients.histogram does), or the run was replayed: then choose one parameter"
)
_MOST_LINES: Final = 10
_VANISHED: Final = 0.9
"""Share of elements below the vanishing threshold above which a layer counts as dead."""
_EXPLODED: Final = 0.1
"""Share of elements above the exploding threshold above which a layer counts as exploding."""

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


_DEAD_NOW = _layers("Vanishing layers", "below the vanishing", chosen(metrics.GRADIENT_VANISHING_FRACTION), _VANISHED)

_EXPLODING_NOW = _layers(
    "Exploding layers", "above the exploding", chosen(metrics.GRADIENT_EXPLODING_FRACTION), _EXPLODED
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

_NOW: Final = Row(
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


def _worst(selector: str) -> str:
    """Return the parameters with the highest values: more lines cannot be distinguished."""
    return f"topk({_MOST_LINES}, {highest(selector, attr.PARAMETER_NAME)})"


_GLOBAL = lines(
    About(
        "Norm of all gradients",
        "By model, with what it was before it was clipped where it was.",
        SCIENTIFIC,
        UNWATCHED,
        rising(5, 10),
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
        UNWATCHED,
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


def _magnitude() -> str:
    """Return how fast elements fall into buckets: those of one parameter, or what was recorded of all together.

    What is recorded has no parameter, which the variable matches where it stands for all; their own series, which are
    too many to add up over a day, it matches then not.
    """
    of_it = {attr.PARAMETER_NAME: Matcher("=~", f"${variables.DISTRIBUTION['name']}")}
    own, recorded = chosen(metrics.GRADIENT_MAGNITUDE, of_it), chosen(MAGNITUDE, of_it)
    return f"sum(rate({own}[{_RATE}])) or sum({recorded})"


_DISTRIBUTION = heatmap(
    About(
        "Absolute values",
        "How the elements of all parameters, or of the one in 'Distribution of', are distributed: elements a second, "
        "from the native histogram. A dot is one step's exemplar of that parameter, and leads to its trace. A band that "
        "sinks is a network that stops learning; one that splits, layers that part ways.",
        SCIENTIFIC,
        _NO_HISTOGRAM,
    ),
    Query(_magnitude(), exemplars=True, form="heatmap"),
)

_SPREAD = lines(
    About(
        "Spread of the absolute values",
        "Of the same: half of all elements are below the middle line.",
        SCIENTIFIC,
        _NO_HISTOGRAM,
    ),
    *(Query(f"histogram_quantile({q:g}, {_magnitude()})", f"{q:.0%}") for q in (0.01, 0.5, 0.99)),
    log=True,
)

_BY_TIME = grid(
    About(
        "Norm by parameter and time",
        "Decimal logarithm of the norm: 0 is 1, -3 is a thousandth. A row that turns blue has stopped learning, one that "
        "turns red is exploding.",
        NUMBER,
        UNWATCHED,
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
            UNWATCHED,
            rising(orange, red),
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


def _of_parameters(title: str, description: str, spec: metrics.MetricSpec, empty: str = UNWATCHED) -> Json:
    return lines(
        About(title, f"{description} The {_MOST_LINES} largest.", SCIENTIFIC, empty),
        Query(_worst(chosen(spec)), legend(attr.PARAMETER_NAME)),
    )


_MEANS = lines(
    About(
        "Means",
        f"The {_MOST_LINES} parameters whose mean is furthest from zero.",
        SCIENTIFIC,
        UNWATCHED,
    ),
    Query(_worst(f"abs({chosen(metrics.GRADIENT_MEAN)})"), legend(attr.PARAMETER_NAME)),
)
_STDS = _of_parameters("Standard deviations", "How far elements scatter.", metrics.GRADIENT_STD)
_MAXIMA = _of_parameters("Largest elements", "Largest finite absolute value.", metrics.GRADIENT_ABS_MAX)
_WEIGHTS = _of_parameters(
    "Weights",
    "Norm of a parameter before the step.",
    metrics.WEIGHT_NORM,
    "The profile does not measure weights: gradients.weight_norms turns it on",
)

_UPDATES = lines(
    About(
        "Update over weight",
        f"Norm of a step's change of a parameter over the norm it had; the {_MOST_LINES} largest. Around 0.001 is usual; "
        "above 0.1 a step overwrites what was learned.",
        SCIENTIFIC,
        "The profile does not measure updates: gradients.update_ratios turns it on",
        rising(0.01, 0.1),
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
        UNWATCHED,
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
        variables.DISTRIBUTION,
    ),
    (
        _NOW,
        Row("Worst layers", ((24, _LAYERS),), 9),
        Row("Norms", ((12, _GLOBAL), (12, _NORMS))),
        Row("Distribution", ((12, _DISTRIBUTION), (6, _SPREAD), (6, _QUANTILES)), 10),
        Row("Parameters by time", ((24, _BY_TIME),), 14),
        Row("Trouble", ((6, _NONFINITE), (6, _VANISHING), (6, _EXPLODING), (6, _ZEROS))),
        Row("Updates", ((12, _UPDATES), (12, _WEIGHTS))),
        Row("Moments", ((8, _MEANS), (8, _STDS), (8, _MAXIMA))),
    ),
)
