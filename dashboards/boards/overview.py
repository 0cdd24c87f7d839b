"""Overview: is this run going well?"""

from typing import Final

from dashboards import variables
from dashboards.board import Board, Row, legend
from dashboards.boards.shared import OVERHEAD, UNWATCHED, newest, overhead
from dashboards.grafana import (
    BYTES,
    COUNT,
    FRACTION,
    GREEN,
    NUMBER,
    PER_SECOND,
    RED,
    SCIENTIFIC,
    SECONDS,
    About,
    Query,
    bars,
    falling,
    lines,
    one_trace,
    rising,
    stat,
    states,
    table,
)
from dashboards.links import filling, of_series, to_traces
from dashboards.promql import chosen, highest, latest, lowest, quantile, series, summed
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus, spans

_ENVIRONMENT: Final = (attr.RANK, attr.ENV_ID)
_MODEL: Final = (*_ENVIRONMENT, attr.MODEL_NAME)

_CHOICE: Final = (variables.SERVICE, variables.RUN, variables.RANK, variables.ENVIRONMENT, variables.MODEL)
_RATE: Final = "$__rate_interval"
_NONE_YET: Final = "No step was taken in this time"
_NOT_VALIDATED: Final = "Nothing was validated in this time"


_EPOCH = stat(
    About("Epoch", "Number of the epoch under way, the furthest environment's.", COUNT, "No epoch began in this time"),
    Query(highest(chosen(metrics.EPOCH))),
)

_STEP = stat(
    About("Step", "Optimizer steps so far, of the furthest environment.", COUNT, _NONE_YET),
    Query(highest(chosen(metrics.STEP))),
)

_SPEED = stat(
    About("Steps per second", "Of all environments and ranks together, within epochs.", PER_SECOND, _NONE_YET),
    Query(summed(f"rate({chosen(metrics.STEP_DURATION, part='count')}[{_RATE}])")),
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
    About("Best validation accuracy", "Highest in this time, of any environment.", FRACTION, _NOT_VALIDATED),
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
        _NOT_VALIDATED,
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

_NOW: Final = Row(
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


_RUNS = table(
    About(
        "Runs",
        "Runs of the service in this time, with their profile, ranks and last step. A click on one selects it.",
        COUNT,
        _NONE_YET,
        links=(filling("Look at this run", "run", "${__data.fields.Run}", variables.SERVICE),),
    ),
    Query(
        highest(
            latest(series(metrics.STEP, {pipeline.SERVICE_NAME: "$service"})),
            attr.RUN_ID,
            attr.PROFILE,
            attr.WORLD_SIZE,
        ),
        instant=True,
        form="table",
    ),
    columns={
        prometheus.label(attr.RUN_ID): "Run",
        prometheus.label(attr.PROFILE): "Profile",
        prometheus.label(attr.WORLD_SIZE): "Ranks",
        "Value": "Last step",
    },
)

_ALERTS = table(
    About(
        "Alerts",
        "Alerts of this run, and of the collector, that are pending or firing. docs/how-to/alerts.md says what to do.",
        NUMBER,
        "No alert: all is well",
    ),
    Query(
        f"{series(pipeline.ALERTS, {pipeline.SERVICE_NAME: '$service'})} or {series(pipeline.ALERTS, {pipeline.SERVICE_NAME: ''})}",
        instant=True,
        form="table",
    ),
    columns={
        "alertname": "Alert",
        "alertstate": "State",
        "severity": "Severity",
        prometheus.label(attr.RUN_ID): "Run",
        prometheus.label(attr.RANK): "Rank",
        prometheus.label(attr.ENV_ID): "Environment",
    },
)

_LOSS = lines(
    About("Loss", "By phase. A line that ends while the run goes on has become NaN or infinite.", NUMBER, _NONE_YET),
    Query(chosen(metrics.LOSS), legend(attr.PHASE, *_MODEL)),
)

_ACCURACY = lines(
    About(
        "Accuracy",
        "By phase; a gap between the two that widens is overfitting.",
        FRACTION,
        "No accuracy was given to validate() in this time",
    ),
    Query(chosen(metrics.ACCURACY), legend(attr.PHASE, *_ENVIRONMENT)),
)

_CLASSES = bars(
    About(
        "Accuracy by class",
        "Of the last validation, the worst environment's; far below the others is a class that the network ignores.",
        FRACTION,
        "No accuracies by class were given to validate()",
        falling(0.5, 0.8),
    ),
    Query(lowest(latest(chosen(metrics.CLASS_ACCURACY)), attr.CLASS_NAME), legend(attr.CLASS_NAME), instant=True),
    most=1,
)

_LEARNING_RATE = lines(
    About("Learning rate", "Of each parameter group, if there are several.", SCIENTIFIC, _NONE_YET),
    Query(chosen(metrics.LEARNING_RATE), legend(*_MODEL, attr.PARAMETER_GROUP_INDEX)),
)

_NOT_CLIPPED: Final = "Gradients are not clipped through Nissa"

_CLIP_NORM = lines(
    About("Clip norm", "Norm of all gradients before they were clipped, by model.", SCIENTIFIC, _NOT_CLIPPED),
    Query(chosen(metrics.CLIP_NORM), legend(*_MODEL)),
    log=True,
)

_CLIP_FACTOR = lines(
    About(
        "Clip factor",
        "What gradients are multiplied with, at most 1. Far below 1 at each step, the clip norm sets the step and not "
        "the learning rate.",
        NUMBER,
        _NOT_CLIPPED,
    ),
    Query(chosen(metrics.CLIP_FACTOR), legend(*_MODEL)),
)

_PROCESS_MEMORY = lines(
    About(
        "Memory of the process",
        "Physical memory in use, by rank. A line that rises to the end is a leak.",
        BYTES,
        "Not measured in this time: process.memory is off, or the system has no /proc",
    ),
    Query(chosen(metrics.PROCESS_MEMORY), legend(attr.RANK)),
)

_DEVICE_MEMORY = lines(
    About(
        "Memory of the device",
        "Of each CUDA device: total, reserved by torch's allocator, allocated by living tensors, and the most of that so far.",
        BYTES,
        "No CUDA device was used in this time, or process.memory is off",
    ),
    Query(chosen(metrics.DEVICE_MEMORY), legend(attr.RANK, attr.DEVICE, attr.DEVICE_NAME, attr.MEMORY_STATE)),
)

_HEALTH_LINE = lines(
    About(
        "Gradient health",
        "0 (broken) to 1 (healthy), by model.",
        NUMBER,
        UNWATCHED,
        falling(0.5, 0.8),
    ),
    Query(chosen(metrics.GRADIENT_HEALTH), legend(*_MODEL)),
)

_FLAGS = states(
    About(
        "Red flags",
        "When each finding held. A click on one leads to its spans in Jaeger, which have its layers and what to try.",
        NUMBER,
        _NOT_VALIDATED,
        links=(
            to_traces(
                "Layers and advice",
                spans.RED_FLAG,
                {attr.RUN_ID: "${run}", attr.RED_FLAG_NAME: of_series(attr.RED_FLAG_NAME)},
            ),
        ),
    ),
    Query(
        f"{highest(chosen(metrics.RED_FLAG), attr.RED_FLAG_NAME, attr.ENV_ID)}"
        f" and {highest(f'max_over_time({chosen(metrics.RED_FLAG)}[$__range])', attr.RED_FLAG_NAME, attr.ENV_ID)} == 1",
        legend(attr.RED_FLAG_NAME, attr.ENV_ID),
    ),
    {"0": ("no", GREEN), "1": ("raised", RED)},
)

_NO_SHARPNESS: Final = "Sharpness is not measured: sharpness.enabled turns it on"

_SHARPNESS = lines(
    About(
        "Sharpness",
        "How curved the loss is, by method. Above 2 over the learning rate, plain gradient descent is unstable.",
        SCIENTIFIC,
        _NO_SHARPNESS,
    ),
    Query(chosen(metrics.SHARPNESS), legend(attr.SHARPNESS_METHOD, *_ENVIRONMENT)),
)

_MARGIN = lines(
    About(
        "Learning rate over the critical one",
        "Above 1 a step raises the loss of its own batch; close to it, training is at the edge of stability.",
        NUMBER,
        _NO_SHARPNESS,
        rising(0.9, 1),
    ),
    Query(chosen(metrics.STABILITY_MARGIN), legend(*_ENVIRONMENT)),
)

_SEEDS = lines(
    About("Seeds by stage", "Of all environments; the board Seeds has more.", COUNT, "No seed germinated in this time"),
    Query(f"{summed(chosen(metrics.SEED_COUNT), attr.SEED_STAGE)} > 0", legend(attr.SEED_STAGE)),
    stacked=True,
)

_DURATION = lines(
    About(
        "Duration of a step",
        "Host time from step to step within an epoch. A dot is one step's; it leads to its trace.",
        SECONDS,
        _NONE_YET,
        links=(to_traces("Steps of this run", spans.STEP, {attr.RUN_ID: "${run}"}),),
    ),
    Query(quantile(0.5, metrics.STEP_DURATION, _RATE), "half of them", exemplars=True),
    Query(quantile(0.95, metrics.STEP_DURATION, _RATE), "95 %"),
)


def _phase_rate(part: str) -> str:
    return summed(f"rate({chosen(metrics.STEP_PHASE_DURATION, part=part)}[{_RATE}])", attr.STEP_PHASE)


_PHASES = lines(
    About(
        "Step phases",
        "Mean host time of a step on data, forward, backward and optimizer. Most of it on data is a loader that is too slow. "
        "A device that works while the host goes on is not waited for.",
        SECONDS,
        "No phase was observed: step_phases is off, or no step was taken in this time",
    ),
    Query(f"{_phase_rate('sum')} / {_phase_rate('count')}", legend(attr.STEP_PHASE)),
    stacked=True,
)

_OVERHEAD = overhead(*_ENVIRONMENT)

_SKIPPED = lines(
    About(
        "Skipped steps",
        "Steps that loss scaling left out, since gradients were not finite. A few at the start are how the scaler finds "
        "its scale; many later are not.",
        COUNT,
        "No step was skipped, or no scaler is watched",
    ),
    Query(summed(chosen(metrics.STEP_SKIPPED), *_MODEL), legend(*_MODEL)),
)

_ONE_RANK: Final = "Weights are compared on several ranks only, and no comparison was made in this time"

_SKEW = lines(
    About(
        "Skew of ranks",
        "Time between the first and the last rank at the same step, by their clocks: at the beginning of the backward pass where "
        "phases are measured, else at the end of the step. In the backward pass all wait for the last one.",
        SECONDS,
        _ONE_RANK,
    ),
    Query(chosen(metrics.STEP_SKEW), legend(*_MODEL)),
)

_REPLICAS = lines(
    About(
        "Replicas",
        "Parameters that differed between ranks that should have equal weights, and comparisons by outcome. 'incomplete' are steps "
        "that a rank did not report.",
        COUNT,
        _ONE_RANK,
    ),
    Query(summed(chosen(metrics.REPLICA_MISMATCH), *_MODEL), f"parameters that differ {legend(*_MODEL)}"),
    Query(summed(chosen(metrics.REPLICA_COMPARISONS), attr.REPLICA_OUTCOME), legend(attr.REPLICA_OUTCOME)),
)

_SCALARS = lines(
    About(
        "Logged values",
        "Values passed to run.log(), by name, averaged over the calls before a step.",
        NUMBER,
        "Nothing was passed to run.log() in this time",
    ),
    Query(chosen(metrics.SCALAR), legend(attr.SCALAR_NAME, *_ENVIRONMENT)),
)

_THROUGHPUT = lines(
    About(
        "Throughput",
        "Items passed to run.log_items() per second, by kind, of all environments and ranks together.",
        PER_SECOND,
        "Nothing was passed to run.log_items() in this time",
    ),
    Query(summed(f"rate({chosen(metrics.ITEMS)}[{_RATE}])", attr.ITEM_KIND), legend(attr.ITEM_KIND)),
    log=True,
)

_BACKWARD = lines(
    About(
        "Value of backward()",
        "What backward() was called on, summed over a step, where the loss was not logged and its scale is not known: "
        "divided for accumulation, or weighted. run.log_loss makes it a loss.",
        NUMBER,
        "The loss of each step is known, or no step was taken in this time",
    ),
    Query(chosen(metrics.BACKWARD_VALUE), legend(*_MODEL)),
)

_NARRATIVES = newest(spans.VALIDATION, "Validations", "Jaeger knows of no validation of this run in this time", _CHOICE)

_NARRATIVE = one_trace(
    About(
        "What training looks like",
        f"The chosen epoch. Its span '{spans.VALIDATION}' has the narrative in {attr.NARRATIVE}.",
        NUMBER,
        "Choose a validation on the left",
    ),
    variables.TRACE["name"],
)

BOARD: Final = Board(
    "nissa-overview",
    "Nissa: Overview",
    "Is this run going well? How far is it, what is wrong with it, and what does it cost to look?",
    (*_CHOICE, variables.TRACE),
    # The order is that of the report.
    (
        _NOW,
        Row("Findings", ((14, _FLAGS), (10, _ALERTS))),
        Row("Learning", ((8, _LOSS), (8, _SCALARS), (8, _BACKWARD), (12, _ACCURACY), (12, _CLASSES))),
        Row("Speed", ((8, _THROUGHPUT), (8, _PHASES), (8, _DURATION))),
        Row("Optimizer", ((6, _CLIP_NORM), (6, _CLIP_FACTOR), (6, _LEARNING_RATE), (6, _SKIPPED))),
        Row("Run", ((8, _RUNS), (8, _PROCESS_MEMORY), (8, _DEVICE_MEMORY))),
        Row("Health and cost", ((6, _HEALTH_LINE), (6, _SHARPNESS), (6, _MARGIN), (6, _OVERHEAD))),
        Row("Ranks", ((12, _REPLICAS), (12, _SKEW))),
        Row("Narrative", ((9, _NARRATIVES), (15, _NARRATIVE)), 12),
        Row("Seeds", ((24, _SEEDS),), collapsed=True),
    ),
)
