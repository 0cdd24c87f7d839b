"""Parts of PromQL, made of the names in `nissa.semconv`; what a metric does not have raises when boards are built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus
from nissa.semconv.metrics import MetricSpec
from nissa.semconv.pipeline import PipelineSeries

VARIABLES: Final = {
    pipeline.SERVICE_NAME: "service",
    attr.RUN_ID: "run",
    attr.RANK: "rank",
    attr.ENV_ID: "environment",
    attr.MODEL_NAME: "model",
    attr.BLUEPRINT_ID: "blueprint",
    attr.PARAMETER_NAME: "parameter",
}
"""Variables of the boards by the attribute that each selects."""

PROCESS: Final = (pipeline.SERVICE_NAME, attr.RUN_ID, attr.RANK)
"""What every series of a training process is selected by."""

_OF_PROCESSES: Final = (
    metrics.BLUEPRINT_ACCURACY_DELTA,
    metrics.BLUEPRINT_COMPUTE_COST,
    metrics.BLUEPRINT_PARAMETERS,
    metrics.DEVICE_MEMORY,
    metrics.HUB_EVENTS,
    metrics.HUB_QUEUE_SIZE,
    metrics.EXPORT_ITEMS,
    metrics.JOURNAL_SIZE,
    metrics.PROCESS_MEMORY,
    metrics.READBACK_DROPPED,
)
_OF_MODELS: Final = (
    metrics.BACKWARD_VALUE,
    metrics.CLIP_FACTOR,
    metrics.CLIP_NORM,
    metrics.GRADIENT_GLOBAL_NORM,
    metrics.GRADIENT_HEALTH,
    metrics.LEARNING_RATE,
    metrics.LOSS,
    metrics.READBACK_LAG,
    metrics.REPLICA_COMPARISONS,
    metrics.REPLICA_MISMATCH,
    metrics.SAMPLING_INTERVAL,
    metrics.STEP_SKEW,
    metrics.STEP_SKIPPED,
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A series that a recording rule makes.

    Args:
        name: ``level:metric:operation``, as Prometheus recommends.
        expression: What it records.
        keys: Attributes that it keeps.
        interval: How often it is evaluated, where that is not the server's ``evaluation_interval``.
        why: What it is for.
    """

    name: str
    expression: str
    keys: tuple[str, ...]
    why: str
    interval: str = ""


Source = MetricSpec | PipelineSeries | Recorded


@dataclass(frozen=True, slots=True)
class Matcher:
    """How a label is compared.

    Args:
        operator: ``=``, ``!=``, ``=~`` or ``!~``.
        value: With what.
    """

    operator: str
    value: str


def isnt(value: str) -> Matcher:
    """Match every other value, and where there is none."""
    return Matcher("!=", value)


def among(*values: str) -> Matcher:
    """Match one of these values."""
    return Matcher("=~", "|".join(values))


def name(source: Source) -> str:
    """Return what Prometheus calls a source; a histogram with explicit bounds is a family of this name."""
    return prometheus.series(source) if isinstance(source, MetricSpec) else source.name


def carried(source: Source) -> tuple[str, ...]:
    """Return the attributes and labels that a source may carry."""
    if isinstance(source, Recorded):
        return source.keys
    if isinstance(source, PipelineSeries):
        return (*pipeline.RESOURCE, *source.labels)
    shared = () if source in _OF_PROCESSES else metrics.EVERY_STREAM if _by_model(source) else (attr.ENV_ID,)
    return (*pipeline.RESOURCE, *shared, *source.attributes)


def _by_model(spec: MetricSpec) -> bool:
    return attr.PARAMETER_NAME in spec.attributes or spec in _OF_MODELS


def series(source: Source, given: Mapping[str, str | Matcher] | None = None, *, part: str = "") -> str:
    """Return a selector without the variables of boards, as rules need it.

    Args:
        source: What to select.
        given: Matchers by attribute.
        part: ``bucket``, ``count`` or ``sum`` of a histogram with explicit bounds.

    Raises:
        ValueError: The source does not carry an attribute.
    """
    matchers = [_matcher(source, key, value) for key, value in (given or {}).items()]
    family = f"{name(source)}_{part}" if part else name(source)
    return f"{family}{{{','.join(matchers)}}}" if matchers else family


def chosen(
    source: Source,
    given: Mapping[str, str | Matcher] | None = None,
    *,
    part: str = "",
    unbound: Sequence[str] = (),
) -> str:
    """Return a selector with the variables of boards: the service is one, the others may be several.

    Args:
        source: What to select.
        given: Further matchers by attribute.
        part: As for `series`.
        unbound: Attributes that the source carries and the board has no variable for.
    """
    scope: dict[str, str | Matcher] = {
        key: f"${variable}" if key == pipeline.SERVICE_NAME else Matcher("=~", f"${variable}")
        for key, variable in VARIABLES.items()
        if key in carried(source) and key not in unbound
    }
    return series(source, scope | dict(given or {}), part=part)


def _matcher(source: Source, key: str, value: str | Matcher) -> str:
    if key not in carried(source):
        raise ValueError(f"{name(source)} does not carry {key}; it carries {', '.join(carried(source))}.")
    compare = value if isinstance(value, Matcher) else Matcher("=", value)
    return f'{prometheus.label(key)}{compare.operator}"{compare.value}"'


def labels(*keys: str) -> str:
    """Return attributes as a list of labels, for ``by``, ``on`` and ``without``."""
    return ", ".join(map(prometheus.label, keys))


def summed(expression: str, *keys: str) -> str:
    """Return the sum by attributes."""
    return _aggregated("sum", expression, keys)


def highest(expression: str, *keys: str) -> str:
    """Return the maximum by attributes."""
    return _aggregated("max", expression, keys)


def lowest(expression: str, *keys: str) -> str:
    """Return the minimum by attributes."""
    return _aggregated("min", expression, keys)


def _aggregated(how: str, expression: str, keys: tuple[str, ...]) -> str:
    return f"{how} by ({labels(*keys)}) ({expression})" if keys else f"{how}({expression})"


def latest(selector: str, window: str = "$__range", ago: str = "") -> str:
    """Return the last value in a window, also of a run that has ended since; the window ends so long ago."""
    return f"last_over_time({selector}[{window}]{f' offset {ago}' if ago else ''})"


def grown(selector: str, window: str, memory: str = "") -> str:
    """Return by how much a counter grew within a window, where it did.

    Unlike ``increase`` it misses nothing of a counter whose first sample is its first event, as ours are, and stays a
    whole number. A counter begins anew with its process, which is a series of its own, so there are no resets to mind.

    Args:
        selector: Of the counter.
        window: Within what.
        memory: How long before the window its last value may be, where exports may have paused; usually 5 minutes.
    """
    before = latest(selector, memory, window) if memory else f"{selector} offset {window}"
    return f"({selector} - {before} > 0 or {selector} unless {before})"


def share(part: str, whole: str) -> str:
    """Return a part of a whole, 0 where there is a whole and nothing of the part, and nothing where there is neither."""
    return f"({part} or {whole} * 0) / {whole}"


def quantile(q: float, source: MetricSpec, window: str) -> str:
    """Return a quantile of a histogram with explicit bounds."""
    return f"histogram_quantile({q:g}, sum by (le) (rate({chosen(source, part='bucket')}[{window}])))"
