"""Metric definitions: name, kind, unit, description and attributes.

Units are UCUM. Dimensionless gauges have an empty unit, because the translation to Prometheus appends ``_ratio`` to the
name of a gauge with unit ``1``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nissa.semconv import attributes as attr


class Kind(StrEnum):
    """Aggregation of a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    UP_DOWN_COUNTER = "up-down counter"
    HISTOGRAM = "histogram"
    EXPONENTIAL_HISTOGRAM = "exponential histogram"


@dataclass(frozen=True, slots=True, eq=False)  # a key of many lookups per sample: the identity is its hash
class MetricSpec:
    """Definition of one metric.

    Args:
        name: OpenTelemetry name.
        kind: Kind of aggregation.
        unit: UCUM unit, empty for a dimensionless gauge.
        description: One line, exported with the metric.
        attributes: Attribute keys of its points, in addition to `EVERY_STREAM`.
        bounds: Explicit bucket bounds of a histogram, in ``unit``.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


EVERY_STREAM: Final = (attr.ENV_ID, attr.MODEL_NAME)
"""Attributes of every stream, set if there is more than one environment or model."""

_G, _C, _U, _H, _E = (
    Kind.GAUGE,
    Kind.COUNTER,
    Kind.UP_DOWN_COUNTER,
    Kind.HISTOGRAM,
    Kind.EXPONENTIAL_HISTOGRAM,
)
_PARAMETER: Final = (attr.PARAMETER_NAME,)

STEP: Final = MetricSpec("nissa.step", _G, "{step}", "Optimizer steps so far, at the time of each")
EPOCH: Final = MetricSpec("nissa.epoch", _G, "{epoch}", "Number of the current epoch")
STEP_DURATION: Final = MetricSpec(
    "nissa.step.duration",
    _H,
    "s",
    "Host wall time from one optimizer step to the next, within an epoch",
    (),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
STEP_PHASE_DURATION: Final = MetricSpec(
    "nissa.step.phase.duration",
    _H,
    "s",
    "Host time of a phase of an optimizer step, within the duration of the step",
    (attr.STEP_PHASE,),
    (0.0001, 0.00025, 0.0005, *STEP_DURATION.bounds),
)
STEP_SKIPPED: Final = MetricSpec(
    "nissa.step.skipped", _C, "{step}", "Steps skipped by loss scaling because gradients were not finite"
)
STEP_SKEW: Final = MetricSpec(
    "nissa.step.skew",
    _G,
    "s",
    "Host time between the first and the last rank at the same step, by their clocks: at the beginning of the backward pass where "
    "phases are measured on all ranks, else at the end of the step",
)
REPLICA_COMPARISONS: Final = MetricSpec(
    "nissa.replica.comparisons",
    _C,
    "{comparison}",
    "Comparisons of the weights of ranks that should have equal ones",
    (attr.REPLICA_OUTCOME,),
)
REPLICA_MISMATCH: Final = MetricSpec(
    "nissa.replica.mismatch",
    _C,
    "{parameter}",
    "Parameters that differed between ranks that should have equal ones, added up over the comparisons that list them",
)
LOSS: Final = MetricSpec("nissa.loss", _G, "", "Loss; may be NaN or infinite, which is a finding", (attr.PHASE,))
BACKWARD_VALUE: Final = MetricSpec(
    "nissa.backward.value",
    _G,
    "",
    "Sum of the values that backward() was called on for a step, where their scale as a loss is not known",
)
ACCURACY: Final = MetricSpec("nissa.accuracy", _G, "", "Accuracy as a fraction", (attr.PHASE,))
CLASS_ACCURACY: Final = MetricSpec(
    "nissa.class.accuracy", _G, "", "Validation accuracy of one class as a fraction", (attr.CLASS_NAME,)
)
LEARNING_RATE: Final = MetricSpec(
    "nissa.learning_rate", _G, "", "Learning rate of a parameter group", (attr.PARAMETER_GROUP_INDEX,)
)
CLIP_NORM: Final = MetricSpec("nissa.clip.norm", _G, "", "Norm of all gradients before they were clipped")
CLIP_FACTOR: Final = MetricSpec(
    "nissa.clip.factor", _G, "", "Factor by which gradients were multiplied to clip them, at most 1"
)

SCALAR: Final = MetricSpec(
    "nissa.scalar", _G, "", "Value passed to log(), averaged over the calls before a step", (attr.SCALAR_NAME,)
)
ITEMS: Final = MetricSpec("nissa.items", _C, "{item}", "Processed items passed to log_items()", (attr.ITEM_KIND,))

GRADIENT_NORM: Final = MetricSpec("nissa.gradient.norm", _G, "", "L2 norm over finite elements", _PARAMETER)
GRADIENT_MEAN: Final = MetricSpec("nissa.gradient.mean", _G, "", "Mean over finite elements", _PARAMETER)
GRADIENT_STD: Final = MetricSpec(
    "nissa.gradient.std", _G, "", "Unbiased standard deviation over finite elements", _PARAMETER
)
GRADIENT_ABS_MAX: Final = MetricSpec("nissa.gradient.abs_max", _G, "", "Largest finite absolute value", _PARAMETER)
GRADIENT_ZERO_FRACTION: Final = MetricSpec("nissa.gradient.zero_fraction", _G, "", "Share of exact zeros", _PARAMETER)
GRADIENT_VANISHING_FRACTION: Final = MetricSpec(
    "nissa.gradient.vanishing_fraction", _G, "", "Share of elements below the vanishing threshold", _PARAMETER
)
GRADIENT_EXPLODING_FRACTION: Final = MetricSpec(
    "nissa.gradient.exploding_fraction", _G, "", "Share of elements above the exploding threshold", _PARAMETER
)
GRADIENT_QUANTILE: Final = MetricSpec(
    "nissa.gradient.quantile", _G, "", "Quantile of the absolute values", (attr.PARAMETER_NAME, attr.QUANTILE)
)
GRADIENT_MAGNITUDE: Final = MetricSpec(
    "nissa.gradient.magnitude",
    _E,
    "",
    "Absolute values of sampled gradients; buckets are an octave wide as soon as one value is outside (2^-48, 2^16]",
    _PARAMETER,
)
GRADIENT_NONFINITE: Final = MetricSpec(
    "nissa.gradient.nonfinite", _C, "{element}", "NaN and infinite elements of sampled gradients", _PARAMETER
)
GRADIENT_GLOBAL_NORM: Final = MetricSpec(
    "nissa.gradient.global_norm", _G, "", "L2 norm over all finite elements of all parameters of a model"
)
GRADIENT_HEALTH: Final = MetricSpec("nissa.gradient.health", _G, "", "0 (broken) to 1 (healthy)")
WEIGHT_NORM: Final = MetricSpec("nissa.weight.norm", _G, "", "L2 norm of a parameter before the step", _PARAMETER)
UPDATE_RATIO: Final = MetricSpec(
    "nissa.update.ratio", _G, "", "L2 norm of a step's change of a parameter over the norm it had before", _PARAMETER
)

SEED_COUNT: Final = MetricSpec("nissa.seed.count", _U, "{seed}", "Seeds by stage", (attr.SEED_STAGE,))
SEED_TRANSITIONS: Final = MetricSpec(
    "nissa.seed.transitions", _C, "{transition}", "Stage changes", (attr.SEED_FROM, attr.SEED_TO, attr.BLUEPRINT_ID)
)
SEED_REFUSED: Final = MetricSpec(
    "nissa.seed.refused_transitions",
    _C,
    "{transition}",
    "Stage changes refused because the table does not allow them",
    (attr.BLUEPRINT_ID,),
)
SEED_UNSAMPLED: Final = MetricSpec("nissa.seed.unsampled", _C, "{seed}", "Seeds whose trace the sampler dropped")
GATE_EVALUATIONS: Final = MetricSpec(
    "nissa.seed.gate.evaluations", _C, "{evaluation}", "Gate decisions", (attr.GATE_NAME, attr.GATE_PASSED)
)
GATE_FAILED_CHECKS: Final = MetricSpec(
    "nissa.seed.gate.failed_checks",
    _C,
    "{check}",
    "Failed checks of gates",
    (attr.GATE_NAME, attr.GATE_CHECK, attr.BLUEPRINT_ID),
)
SEED_LIFESPAN: Final = MetricSpec(
    "nissa.seed.lifespan",
    _H,
    "{epoch}",
    "Epochs from germination to the end of a seed's life",
    (attr.SEED_OUTCOME, attr.BLUEPRINT_ID),
    (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200),
)
SEED_ALPHA: Final = MetricSpec(
    "nissa.seed.alpha", _G, "", "Blending weight of the seed in a slot, 0 to 1", (attr.SEED_SLOT,)
)
SEED_GRADIENT_RATIO: Final = MetricSpec(
    "nissa.seed.gradient_ratio",
    _G,
    "",
    "Root mean square of a growing seed's gradients over that of its host's gradients",
    (attr.SEED_SLOT,),
)
BLUEPRINT_ACCURACY_DELTA: Final = MetricSpec(
    "nissa.blueprint.accuracy_delta",
    _G,
    "",
    "Mean improvement by a blueprint's fossilized seeds, as a fraction",
    (attr.BLUEPRINT_ID,),
)
BLUEPRINT_COMPUTE_COST: Final = MetricSpec(
    "nissa.blueprint.compute_cost",
    _G,
    "",
    "Compute of a network with one seed of a blueprint, as a multiple of its compute without",
    (attr.BLUEPRINT_ID,),
)
BLUEPRINT_PARAMETERS: Final = MetricSpec(
    "nissa.blueprint.parameters", _G, "{parameter}", "Mean parameters of a blueprint's seeds", (attr.BLUEPRINT_ID,)
)
RED_FLAG: Final = MetricSpec("nissa.red_flag", _G, "", "1 while a finding holds, else 0", (attr.RED_FLAG_NAME,))
SHARPNESS: Final = MetricSpec(
    "nissa.sharpness", _G, "", "Curvature of the loss at the current weights", (attr.SHARPNESS_METHOD,)
)
STABILITY_MARGIN: Final = MetricSpec(
    "nissa.stability_margin", _G, "", "Learning rate over the critical one, above which a step raises its batch's loss"
)

HUB_EVENTS: Final = MetricSpec(
    "nissa.hub.events",
    _C,
    "{event}",
    "Events and measurements by outcome",
    (attr.BACKEND_NAME, attr.EVENT_TYPE, attr.EVENT_OUTCOME),
)
HUB_QUEUE_SIZE: Final = MetricSpec(
    "nissa.hub.queue.size", _G, "{event}", "Items that wait for a backend", (attr.BACKEND_NAME,)
)
READBACK_LAG: Final = MetricSpec("nissa.readback.lag", _G, "s", "Time from a step until its statistics are on the host")
READBACK_DROPPED: Final = MetricSpec(
    "nissa.readback.dropped", _C, "{step}", "Sampled steps dropped because the reader fell behind"
)
EXPORT_ITEMS: Final = MetricSpec(
    "nissa.export.items",
    _C,
    "{item}",
    "Spans, metric points and log records by what became of them",
    (attr.SIGNAL, attr.EXPORT_OUTCOME),
)
JOURNAL_SIZE: Final = MetricSpec(
    "nissa.journal.size", _G, "By", "Telemetry on disk: files, or what waits for the collector"
)
OVERHEAD_RATIO: Final = MetricSpec(
    "nissa.overhead.ratio", _G, "", "Share of wall time that telemetry took from training since the last sampled step"
)
SAMPLING_INTERVAL: Final = MetricSpec(
    "nissa.sampling.interval", _G, "{step}", "Optimizer steps from one sampled step to the next"
)

PROCESS_MEMORY: Final = MetricSpec("process.memory.usage", _U, "By", "Physical memory in use by the process")
DEVICE_MEMORY: Final = MetricSpec(
    "nissa.device.memory",
    _G,
    "By",
    "Memory of a CUDA device, from the books of torch's allocator in this process",
    (attr.DEVICE, attr.DEVICE_NAME, attr.MEMORY_STATE),
)

ALL: Final[tuple[MetricSpec, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, MetricSpec))
BY_NAME: Final[dict[str, MetricSpec]] = {spec.name: spec for spec in ALL}

EVENT_METRICS: Final = frozenset(
    {
        SEED_COUNT,
        SEED_TRANSITIONS,
        SEED_REFUSED,
        SEED_UNSAMPLED,
        SEED_LIFESPAN,
        GATE_EVALUATIONS,
        GATE_FAILED_CHECKS,
    }
)
"""Sums and histograms that change with an event, and are exported together with it."""

GRADIENT_STATISTICS: Final[dict[str, MetricSpec]] = {
    spec.name.rpartition(".")[2]: spec
    for spec in (
        GRADIENT_NORM,
        GRADIENT_MEAN,
        GRADIENT_STD,
        GRADIENT_ABS_MAX,
        GRADIENT_ZERO_FRACTION,
        GRADIENT_VANISHING_FRACTION,
        GRADIENT_EXPLODING_FRACTION,
    )
}
"""Per-parameter gauges by their name in the configuration."""
