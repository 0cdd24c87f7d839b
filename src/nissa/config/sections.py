"""Configuration sections: one frozen model per concern, with range, default and meaning of every field.

The string below a field is its documentation. The reference pages and the error messages are derived from it and from
the declared range.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from nissa.config.layer_selectors import ALL, parse_selector
from nissa.config.rules import RulesConfig
from nissa.config.section import Section

Statistic = Literal[
    "norm", "mean", "std", "abs_max", "zero_fraction", "vanishing_fraction", "exploding_fraction"
]  # fmt: skip
"""Name of a gradient statistic that is exported as one gauge per parameter."""

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
"""All statistics, in the order of the documentation."""

DEFAULT_PERCENTILES = (1.0, 50.0, 99.0)
"""Default percentiles of the absolute gradient values: both tails and the median."""


def _percentiles_of(data: dict[str, Any]) -> tuple[float, ...]:
    """Return the default percentiles; empty if the histogram is off, because they are computed from its buckets."""
    return () if data.get("histogram") is False else DEFAULT_PERCENTILES


def selectors_of(layers: Any) -> Any:
    """Convert a single selector to a tuple, and a list with only ``all`` to ``all``."""
    if isinstance(layers, str) and layers != ALL:
        return (layers,)
    return ALL if layers in ([ALL], (ALL,)) else layers


def checked_selectors(layers: Any) -> Any:
    """Return selectors that are valid.

    Raises:
        ValueError: There is none, or one is invalid.
    """
    if not layers:
        raise ValueError("an empty list selects no parameter; use 'all', name globs, or set enabled to false")
    for text in () if layers == ALL else layers:
        parse_selector(text)
    return layers


class GradientConfig(Section):
    """Measurement and export of the gradients that an optimizer uses."""

    enabled: bool = False
    """Measure the gradients of sampled steps."""

    every_n_steps: int = Field(default=10, ge=1, le=1_000_000)
    """Measure on every n-th step of an optimizer; 1 measures on each."""

    layers: Literal["all"] | tuple[str, ...] = "all"
    """Parameters to measure: ``all``, or a list of globs over their names such as ``encoder.*.weight``, regular
    expressions such as ``re:encoder[.][0-3][.].*`` and types of their modules such as ``type:Linear``. A ``!`` before
    an entry excludes its parameters; if every entry has one, all other parameters are measured."""

    histogram: bool = True
    """Count absolute values in buckets of powers of two: the source of ``nissa.gradient.magnitude`` and of quantiles."""

    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(default_factory=_percentiles_of)
    """Percentiles of the absolute values to export, sorted and without duplicates. Empty if ``histogram`` is off."""

    statistics: tuple[Statistic, ...] = STATISTICS
    """Gauges to export for each parameter. Health and findings use all statistics, exported or not."""

    vanishing_threshold: float = Field(default=1e-7, gt=0)
    """An absolute gradient value below this counts as vanishing."""

    exploding_threshold: float = Field(default=1e3, gt=0)
    """An absolute gradient value above this counts as exploding."""

    max_parameters: int = Field(default=200, ge=1, le=100_000)
    """Maximum number of parameters with streams of their own; the others are merged into the block they belong to."""

    group_by: Literal["parameter", "module", "block"] = "parameter"
    """Parameters that share a stream: none (``parameter``), those of a ``module``, or those of a ``block``: an element
    of the outermost list, dictionary or sequence of modules, else a child of the network. ``max_parameters`` then
    limits the number of groups."""

    top_k: int | None = Field(default=None, ge=1, le=100_000)
    """Maximum number of streams to export for each sampled step: those with non-finite elements first, then those with
    the largest norm. Health, findings and the global norm still cover all parameters. With null all are exported."""

    ranks: Literal["auto", "first", "all"] = "auto"
    """Ranks that export gradient streams. With ``auto`` one rank exports values that are equal on all ranks, and each
    rank those that may differ; ``first`` is rank 0 only. All ranks measure."""

    weight_norms: bool = False
    """Export ``nissa.weight.norm``, the L2 norm of each measured parameter before a sampled step."""

    update_ratios: bool = False
    """Export ``nissa.update.ratio``, the L2 norm of a sampled step's change of each parameter over the norm that it had
    before; costs one copy of the measured weights during such a step."""

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Percentiles as fractions, rounded, because 99.9 / 100 exceeds 0.999 and would select the next element."""
        return tuple(round(percentile / 100, 12) for percentile in self.percentiles)

    @field_validator("layers", mode="before")
    @classmethod
    def _accept_a_single_selector(cls, layers: Any) -> Any:
        return selectors_of(layers)

    @field_validator("layers")
    @classmethod
    def _select_something(cls, layers: Any) -> Any:
        return checked_selectors(layers)

    @field_validator("percentiles")
    @classmethod
    def _sort_percentiles(cls, percentiles: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(percentiles)))

    @field_validator("statistics")
    @classmethod
    def _order_statistics(cls, statistics: tuple[Statistic, ...]) -> tuple[Statistic, ...]:
        return tuple(name for name in STATISTICS if name in statistics)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.vanishing_threshold >= self.exploding_threshold:
            raise ValueError(
                f"vanishing_threshold ({self.vanishing_threshold:g}) must be below "
                f"exploding_threshold ({self.exploding_threshold:g})"
            )
        if self.top_k is not None and self.top_k > self.max_parameters:
            raise ValueError(
                f"top_k ({self.top_k}) chooses among at most max_parameters ({self.max_parameters}) streams; "
                "lower top_k, set it to null, or raise max_parameters"
            )
        if self.percentiles and not self.histogram:
            raise ValueError("percentiles are read from the histogram; set histogram to true, or percentiles to []")
        return self


class PerClassConfig(Section):
    """Per-class statistics of a classifier."""

    enabled: bool = False
    """Keep per-class accuracy in the snapshots and export it as ``nissa.class.accuracy``."""

    track_loss: bool = False
    """Keep per-class loss in the snapshots, if a meter or the caller passes it."""

    track_confusion: bool = False
    """Keep the confusion matrix in the snapshots, if a meter or the caller passes it and it has at most ``max_classes``
    classes."""

    max_classes: int = Field(default=100, ge=1, le=100_000)
    """Maximum number of classes with streams of their own."""


class SpanConfig(Section):
    """Optional spans, in addition to those of seeds, epochs and validations."""

    started: bool = True
    """Write a zero-length ``.started`` span when a long span begins, so that it is visible before it ends."""

    steps: bool = True
    """Write a ``step`` span for each step on which gradients are measured."""


class LogsConfig(Section):
    """Log records and warnings of the process, in the trace of the epoch in which they are issued."""

    capture: bool = False
    """Export what the process logs with ``logging``, except the export's own loggers. The output stays as it is."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Lowest level of log records to export. A logger's own level applies as well; that of the root is ``WARNING``."""

    warnings: bool = True
    """Record each different warning of torch as an event, for example those of anomaly mode or about the order of
    ``lr_scheduler.step()``; at most 100 in a run."""


class ProcessConfig(Section):
    """Description of the process, for the report and for comparisons of runs: an Event at the start of the run."""

    describe: bool = True
    """Record host, processor, Python, versions of a short list of packages, and the commit of the script's repository."""

    command_line: bool = True
    """Include the command line in the description, with credentials replaced by ``***``."""

    memory: bool = True
    """Export the memory of the process and of its CUDA devices at each export of metrics."""


class DiagnosisConfig(Section):
    """Diagnosis of loops without epochs."""

    every_n_steps: int | None = Field(default=1_000, ge=1, le=1_000_000_000)
    """Export a narrative after every n-th step outside epochs, so that a loop without epochs and validations has one, too.
    With null only ``diagnose()`` and ``validate()`` make one."""


class DiagnosticsConfig(Section):
    """Thresholds of findings. Accuracies are fractions: 0.02 is two percentage points."""

    plateau_epochs: int = Field(default=3, ge=2, le=100)
    """Number of epochs without a change of the validation loss from which it is on a plateau."""

    plateau_delta: float = Field(default=0.005, gt=0, le=1_000)
    """Distance within which the validation loss counts as unchanged, as a share of the first one."""

    improvement_delta: float = Field(default=0.02, gt=0, le=1)
    """Rise of the rolling mean of validation accuracy that counts as an improvement."""

    degradation_delta: float = Field(default=0.02, gt=0, le=1)
    """Fall of the rolling mean of validation accuracy that counts as a degradation."""

    rolling_window: int = Field(default=3, ge=1, le=50)
    """Number of epochs in a rolling mean of validation accuracy."""

    overfitting_gap: float = Field(default=0.5, gt=0, le=1_000)
    """Validation loss minus training loss above which the network is overfitted."""

    class_imbalance_spread: float = Field(default=0.2, gt=0, le=1)
    """Accuracy of the best class minus that of the worst above which classes are imbalanced."""

    contracts: bool = True
    """Check contracts of the program: conditions that every correct training keeps, such as that each trainable parameter is
    in an optimizer."""

    rules: RulesConfig = RulesConfig()
    """Thresholds of the rules that raise red flags."""


class ReplicasConfig(Section):
    """Comparison of weights between ranks that should have equal ones."""

    enabled: bool = True
    """Compare digests of weights on several ranks: within the group of a wrapper such as ``DistributedDataParallel``, or within
    ``watch(replicas=...)``."""

    every_n_samples: int = Field(default=10, ge=1, le=1_000_000)
    """Compare on the first and every n-th sampled step. With ``gradients.weight_norms`` or ``gradients.update_ratios``, weights are
    read on every sampled step anyway, so that all are compared."""

    layers: Literal["all"] | tuple[str, ...] = "all"
    """Parameters to compare, in the syntax of ``gradients.layers``. Exclude those that differ on purpose, such as
    ``["!*.experts.*"]``."""

    @field_validator("layers", mode="before")
    @classmethod
    def _accept_a_single_selector(cls, layers: Any) -> Any:
        return selectors_of(layers)

    @field_validator("layers")
    @classmethod
    def _select_something(cls, layers: Any) -> Any:
        return checked_selectors(layers)


class LimitsConfig(Section):
    """Limits on memory, metric series and time."""

    queue_size: int = Field(default=10_000, ge=1, le=10_000_000)
    """Maximum number of droppable items that wait for each backend; further ones are dropped and counted."""

    lifecycle_queue_size: int = Field(default=100_000, ge=1, le=10_000_000)
    """Maximum number of lifecycle events that wait for each backend. Their queue is separate, so that steps never
    displace them."""

    readback_queue_size: int = Field(default=64, ge=1, le=4_096)
    """Maximum number of pending copies from the device; if the queue is full, the step is dropped and counted."""

    gauge_points_per_export: int = Field(default=20_000, ge=1, le=10_000_000)
    """Maximum number of gauge points of parameters' streams in one export; above it each stream is thinned evenly."""

    step_points_per_export: int = Field(default=500_000, ge=1, le=100_000_000)
    """Maximum number of gauge points of all other streams in one export, such as the step, its loss and its learning
    rate. The limit is separate, so that parameters never displace them; above it the longest streams are thinned
    evenly, which is logged once."""

    max_blueprints: int = Field(default=100, ge=1, le=100_000)
    """Maximum number of blueprints with metric streams of their own; further ones are counted together as ``other``."""

    max_seeds: int = Field(default=10_000, ge=1, le=10_000_000)
    """Maximum number of seeds to remember; above it those whose fate was decided first are forgotten, live ones never."""

    max_slots: int = Field(default=100, ge=1, le=100_000)
    """Maximum number of slots with metric streams of their own (``nissa.seed.alpha``, ``nissa.seed.gradient_ratio``);
    further ones have none."""

    max_parameter_groups: int = Field(default=64, ge=1, le=100_000)
    """Maximum number of parameter groups of an optimizer with a stream of their own in ``nissa.learning_rate``; further
    ones have none."""

    max_environments: int = Field(default=1_000, ge=1, le=100_000)
    """Maximum number of environments with metric streams of their own. The seeds, gates and steps of further ones are
    counted as ``other``, and they have no gauges and no gradient streams."""

    max_gate_checks: int = Field(default=100, ge=1, le=100_000)
    """Maximum number of gates, and of checks of gates, with metric streams of their own; further ones are counted as
    ``other``."""

    max_scalars: int = Field(default=500, ge=1, le=100_000)
    """Maximum number of names passed to ``log()``, and of kinds passed to ``log_items()``. The values of further names are
    absent, and further kinds are counted as ``other``; both are logged once, and dropped values are counted."""

    max_run_config: int = Field(default=100, ge=1, le=10_000)
    """Maximum number of hyperparameters of ``start(run_config=...)`` that are exported. The SDK drops attributes of a span
    above 128 (``OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT``)."""

    max_event_types: int = Field(default=200, ge=1, le=100_000)
    """Maximum number of event types with a stream of their own in ``nissa.hub.events``; further ones are counted as
    ``other``."""

    max_backends: int = Field(default=100, ge=1, le=100_000)
    """Maximum number of backends with streams of their own in ``nissa.hub.events`` and ``nissa.hub.queue.size``;
    further ones are counted as ``other``."""

    payload_items: int = Field(default=1_000, ge=1, le=1_000_000)
    """Maximum number of entries in the data of one event, those of nested containers included. Further ones are left
    out, and the event is marked as truncated."""

    payload_depth: int = Field(default=6, ge=1, le=20)
    """Maximum number of nested containers in the data of one event; a deeper one is replaced by the name of its type."""

    payload_characters: int = Field(default=65_536, ge=1_024, le=16_777_216)
    """Maximum length of all text in the data of one event, in characters; a single text has at most 8,192."""

    histogram_buckets: int = Field(default=160, ge=2, le=320)
    """Maximum number of buckets in an exponential histogram point; a wider range is exported at a coarser scale."""

    exit_timeout_seconds: float = Field(default=5.0, ge=0, le=3_600)
    """Maximum time that the end of a run waits for queued data, in seconds."""

    validation_wait_seconds: float = Field(default=0.05, ge=0, le=60)
    """Maximum time that ``validate()`` waits for the statistics of the last step, in seconds."""


class FilesConfig(Section):
    """Output files: OTLP JSON lines if no exporter is configured, else the spool of what a collector has not accepted yet."""

    directory: Path = Path("nissa-runs")
    """Folder that receives one subfolder per run."""

    export_interval_seconds: float = Field(default=5.0, ge=0.1, le=3_600)
    """Seconds between two writes of metrics to the files; at most 5, so that a killed process loses no more."""

    delivery: Literal["journal", "sdk"] = "journal"
    """How telemetry reaches a collector: ``journal`` writes it to disk first, sends it with Nissa's OTLP client, and keeps
    what is not delivered; ``sdk`` uses the official exporters, which lose it."""

    max_bytes: int = Field(default=2 << 30, ge=1 << 20, le=1 << 42)
    """Maximum size of the files of one process of a run; as they fill, metrics are written for fewer steps."""

    max_spool_bytes: int = Field(default=1 << 30, ge=1 << 16, le=1 << 40)
    """Maximum size of the telemetry that waits for a collector; above it the oldest metrics are dropped first."""

    keep: bool = False
    """Keep delivered telemetry on disk, for a report or a replay."""

    fsync: bool = False
    """Force each write to the disk, so that telemetry also survives the death of the machine; slow."""

    @field_validator("directory")
    @classmethod
    def _refuse_nul(cls, directory: Path) -> Path:
        if "\0" in str(directory):
            raise ValueError("a path cannot contain NUL characters; give the path of a folder")
        return directory


class ConsoleConfig(Section):
    """Console output during training."""

    enabled: bool = True
    """Print one line per epoch."""

    every_seconds: float = Field(default=60.0, ge=0, le=86_400)
    """Minimum time between two lines of a run without epochs, in seconds; the first line is that of its first step."""

    color: bool | None = None
    """Use colours; null uses them if the stream is a terminal."""
