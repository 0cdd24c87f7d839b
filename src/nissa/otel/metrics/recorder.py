"""Recorder that converts events and measurements to metrics.

`MetricRecorder` is the entry point. It passes gradient samples to `GradientRecorder`, which keeps one stream per
parameter from its first sample until the network drops it.
"""

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nissa.events import EventType, SpanIds, TelemetryEvent
from nissa.otel.metrics.store import MagnitudeStream, Sample, key_of
from nissa.seeds.stages import ALIVE, FINAL
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.cardinality import CardinalityLimiter, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from nissa.config import GradientConfig, TelemetryConfig
    from nissa.hub.measurements import (
        DiagnosisMeasured,
        GradientsMeasured,
        LoggedMeasured,
        ReplicasCompared,
        StepMeasured,
        StepSkipped,
        ValidationMeasured,
        WholeModelMeasured,
    )
    from nissa.kernels.moments import Moments
    from nissa.otel.metrics.store import MetricStore

_Model = tuple[str | None, str | None]
"""Environment and model name."""

_COMPARED: Final = frozenset({"equal", "different", "incomplete", "failed"})
"""Outcomes of comparisons of weights that are counted."""

_BEGINNINGS: Final = frozenset({EventType.SEED_GERMINATED, EventType.CHECKPOINT_LOADED})


class MetricRecorder:
    """Records events and measurements in the metric store.

    Args:
        store: Metric store of the run.
        config: Selects the exported statistics and sets the limits.
        dropped: Returns whether the sampler has dropped the span of an epoch. Exemplars must not refer to it then.

    Attributes:
        environments: Limits the environments with streams of their own.
    """

    def __init__(
        self,
        store: "MetricStore",
        config: "TelemetryConfig",
        *,
        dropped: "Callable[[str | None, SpanIds], bool]" = lambda *_: False,
    ) -> None:
        self._store = store
        self._dropped = dropped
        limits = config.limits
        self.environments = CardinalityLimiter(limits.max_environments, "environments", "limits.max_environments")
        self._blueprints = CardinalityLimiter(limits.max_blueprints, "blueprints", "limits.max_blueprints")
        self._slots = CardinalityLimiter(limits.max_slots, "slots", "limits.max_slots")
        self._gates = CardinalityLimiter(limits.max_gate_checks, "gates", "limits.max_gate_checks")
        self._checks = CardinalityLimiter(limits.max_gate_checks, "gate checks", "limits.max_gate_checks")
        self._classes = CardinalityLimiter(config.per_class.max_classes, "classes", "per_class.max_classes")
        groups = limits.max_parameter_groups
        self._parameter_groups = CardinalityLimiter(groups, "parameter groups", "limits.max_parameter_groups")
        # Models that have had several parameter groups; the streams of their rates keep the index.
        self._grouped: set[_Model] = set()
        self._gradients = GradientRecorder(store, config.gradients, slots=self._slots)

    def event(self, event: TelemetryEvent) -> None:
        """Record an event."""
        env = self._env(event.env_id)
        if event.refused is not None:
            self._store.add(metric.SEED_REFUSED, env | self._blueprint(event))
            return
        if event.seed is not None:
            self._seed(event, env)
        if event.event_type == EventType.SEED_GATE_EVALUATED:
            self._gate(event, env)
        elif self.environments.own(event.env_id) is not None:
            self._gauges_of(event, env)

    def _gauges_of(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        if event.event_type in {EventType.RED_FLAG_RAISED, EventType.RED_FLAG_CLEARED}:
            flag = env | {attr.RED_FLAG_NAME: str(event.data.get("flag"))}
            self._store.gauge(metric.RED_FLAG, flag, event.time_unix_nano, int(bool(event.data.get("up"))))
        elif event.event_type == EventType.EPOCH_STARTED and event.epoch is not None:
            self._store.gauge(metric.EPOCH, env, event.time_unix_nano, event.epoch)

    def step(self, step: "StepMeasured") -> None:
        """Record a step: duration, loss, learning rate, clipping, overhead."""
        env, at = self._env(step.env_id), step.time_unix_nano
        model = self._model(step.env_id, step.model_name)
        if step.duration is not None:
            epoch = self._epoch(step)
            sample = Sample(step.duration, at, epoch) if epoch else None
            self._store.observe(metric.STEP_DURATION, env, step.duration, sample=sample)
        for phase, seconds in step.phases.items():
            self._store.observe(metric.STEP_PHASE_DURATION, env | {attr.STEP_PHASE: phase}, seconds)
        if self.environments.own(step.env_id) is None:
            return
        if step.primary:
            self._store.gauge(metric.STEP, env, at, step.step)
        self._store.gauge(metric.LOSS, model | {attr.PHASE: "train"}, at, step.loss)
        self._store.gauge(metric.BACKWARD_VALUE, model, at, step.backward_value)
        self._learning_rates(step, model)
        self._store.gauge(metric.CLIP_NORM, model, at, step.clip_norm)
        self._store.gauge(metric.CLIP_FACTOR, model, at, step.clip_factor)
        self._store.gauge(metric.OVERHEAD_RATIO, env, at, step.overhead)
        self._store.gauge(metric.SAMPLING_INTERVAL, model, at, step.sampling_interval)

    def _learning_rates(self, step: "StepMeasured", model: dict[str, Any]) -> None:
        """Record the learning rate of each parameter group; of a single one without its index."""
        key = step.env_id, step.model_name
        if len(step.learning_rates) > 1:
            self._grouped.add(key)
        if key not in self._grouped:
            self._store.gauge(metric.LEARNING_RATE, model, step.time_unix_nano, step.learning_rate)
            return
        for index, rate in enumerate(step.learning_rates):
            group = self._parameter_groups.own(index)
            if group is not None:
                attributes = model | {attr.PARAMETER_GROUP_INDEX: group}
                self._store.gauge(metric.LEARNING_RATE, attributes, step.time_unix_nano, rate)

    def whole_model(self, sample: "WholeModelMeasured") -> None:
        """Record the gradients of a model with several optimizers."""
        if self.environments.own(sample.env_id) is None:
            return
        model, at = self._model(sample.env_id, sample.model_name), sample.time_unix_nano
        self._store.gauge(metric.GRADIENT_GLOBAL_NORM, model, at, sample.health.global_norm)
        self._store.gauge(metric.GRADIENT_HEALTH, model, at, sample.health.score)

    def replicas(self, compared: "ReplicasCompared") -> None:
        """Record a comparison of ranks. One rank exports what all know, and each rank what it could not compare."""
        model = self._model(compared.env_id, compared.model_name)
        own = compared.leads or compared.outcome == "failed"
        if own and compared.outcome in _COMPARED:
            self._store.add(metric.REPLICA_COMPARISONS, model | {attr.REPLICA_OUTCOME: compared.outcome}, 1)
        if compared.leads and compared.outcome in {
            "equal",
            "explained",
        }:  # zero at first, so that an increase can be seen
            self._store.add(metric.REPLICA_MISMATCH, model, len(compared.layers))
        if compared.leads and self.environments.own(compared.env_id) is not None:
            self._store.gauge(metric.STEP_SKEW, model, compared.time_unix_nano, compared.skew)

    def skipped(self, step: "StepSkipped") -> None:
        """Count optimizer steps that loss scaling skipped."""
        self._store.add(metric.STEP_SKIPPED, self._model(step.env_id, step.model_name), step.count)

    def logged(self, logged: "LoggedMeasured") -> None:
        """Record values that the training loop logged. Their names are bounded where they are logged."""
        env = self._env(logged.env_id)
        for kind, more in logged.items.items():
            self._store.add(metric.ITEMS, env | {attr.ITEM_KIND: kind}, more)
        if self.environments.own(logged.env_id) is not None:
            for name, value in logged.scalars.items():
                self._store.gauge(metric.SCALAR, env | {attr.SCALAR_NAME: name}, logged.time_unix_nano, value)

    def validation(self, validation: "ValidationMeasured") -> None:
        """Record a validation: losses, accuracies, sharpness, red flags."""
        if self.environments.own(validation.env_id) is None:
            return
        env, at = self._env(validation.env_id), validation.time_unix_nano
        self._store.gauge(metric.LOSS, env | {attr.PHASE: "validation"}, at, validation.loss)
        self._store.gauge(metric.ACCURACY, env | {attr.PHASE: "validation"}, at, validation.accuracy)
        self._store.gauge(metric.ACCURACY, env | {attr.PHASE: "train"}, at, validation.train_accuracy)
        for name, accuracy in validation.per_class_accuracy.items():
            if self._classes.own(name) is None:
                continue
            self._store.gauge(metric.CLASS_ACCURACY, env | {attr.CLASS_NAME: name}, at, accuracy)
        for method, sharpness in validation.sharpness.items():
            self._store.gauge(metric.SHARPNESS, env | {attr.SHARPNESS_METHOD: method}, at, sharpness)
        self._store.gauge(metric.STABILITY_MARGIN, env, at, validation.stability_margin)
        self._red_flags(validation, env)

    def diagnosis(self, diagnosis: "DiagnosisMeasured") -> None:
        """Record the red flags of a diagnosis without a validation."""
        if self.environments.own(diagnosis.env_id) is not None:
            self._red_flags(diagnosis, self._env(diagnosis.env_id))

    def _red_flags(self, judged: "ValidationMeasured | DiagnosisMeasured", env: dict[str, Any]) -> None:
        for name, raised in judged.red_flags.items():
            flag = env | {attr.RED_FLAG_NAME: name}
            self._store.gauge(metric.RED_FLAG, flag, judged.time_unix_nano, int(raised))

    def gradients(self, sample: "GradientsMeasured") -> None:
        """Record the gradients of one sampled step."""
        if self.environments.own(sample.env_id) is not None:
            self._gradients.record(sample, self._epoch(sample))

    def _epoch(self, measured: "StepMeasured | GradientsMeasured") -> SpanIds | None:
        """Return the epoch span for an exemplar of a measurement, None if its trace is not exported."""
        ids = measured.epoch_ids
        return None if ids is None or self._dropped(measured.env_id, ids) else ids

    def _seed(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        """Record the seed of an event: seeds per stage, transitions, lifespan, alpha."""
        seed, transition = event.seed, event.transition
        assert seed is not None  # noqa: S101 - the caller looked
        if event.event_type in _BEGINNINGS:
            self._store.add(metric.SEED_COUNT, env | {attr.SEED_STAGE: seed.stage.label})
        elif transition is not None:
            before, after = (stage.label for stage in transition)
            change = {attr.SEED_FROM: before, attr.SEED_TO: after}
            self._store.add(metric.SEED_TRANSITIONS, env | change | self._blueprint(event))
            self._store.add(metric.SEED_COUNT, env | {attr.SEED_STAGE: before}, -1)
            self._store.add(metric.SEED_COUNT, env | {attr.SEED_STAGE: after})
            if seed.stage in FINAL:
                outcome = env | {attr.SEED_OUTCOME: after} | self._blueprint(event)
                self._store.observe(metric.SEED_LIFESPAN, outcome, seed.epochs_total)
        self._alpha(event, env)

    def _blueprint(self, event: TelemetryEvent) -> dict[str, Any]:
        return {attr.BLUEPRINT_ID: self._blueprints.label(event.seed.blueprint_id if event.seed else None)}

    def _gate(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        gate = env | {attr.GATE_NAME: self._gates.label(event.data.get("gate"))}
        self._store.add(metric.GATE_EVALUATIONS, gate | {attr.GATE_PASSED: bool(event.data.get("passed"))})
        for check in event.data.get("checks_failed") or ():
            failed = {attr.GATE_CHECK: self._checks.label(check_name(str(check)))}
            self._store.add(metric.GATE_FAILED_CHECKS, gate | failed | self._blueprint(event))

    def _alpha(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        """Record the alpha of the seed in a slot; end the gauges of the slot when the seed ends."""
        seed = event.seed
        ends = event.transition is not None and event.transition[1] in FINAL
        if seed is None or seed.slot_id is None or not (ends or seed.stage in ALIVE):
            return
        slot, own = self._slots.own(seed.slot_id), self.environments.own(event.env_id)
        if slot is None or own is None:
            return
        attributes = env | {attr.SEED_SLOT: slot}
        self._store.gauge(metric.SEED_ALPHA, attributes, event.time_unix_nano, seed.alpha)
        if ends:
            self._store.end_gauges(key_of(attributes))

    def _env(self, env_id: str | None) -> dict[str, Any]:
        return {} if env_id is None else {attr.ENV_ID: self.environments.label(env_id)}

    def _model(self, env_id: str | None, model_name: str | None) -> dict[str, Any]:
        return self._env(env_id) | ({} if model_name is None else {attr.MODEL_NAME: model_name})


class _Parameters:
    """Metric state of the parameters of one network, one row per parameter.

    Args:
        names: Parameter names.
        base: Attributes common to all rows.
        quantiles: Exported quantiles, 0 to 1.

    Attributes:
        rows: Attributes per parameter; built once, because rebuilding them at each sample would be slow.
        quantile_rows: Attributes per quantile and parameter, quantile by quantile.
        counted: Whether the row has a stream of non-finite elements already.
        magnitudes: Magnitude histogram per row, None before its first sample.
        counts: Bucket counts of all magnitude histograms, (rows, buckets + 2). The streams hold views of its rows, so
            that one addition updates all of them. None before the first histogram.
    """

    def __init__(self, names: tuple[str, ...], base: dict[str, Any], quantiles: "Sequence[float]") -> None:
        self.names = names
        self.rows = [base | {attr.PARAMETER_NAME: name} for name in names]
        self.quantile_rows = [row | {attr.QUANTILE: f"{q:.12g}"} for q in quantiles for row in self.rows]
        self.counted = np.zeros(len(names), dtype=np.bool_)
        self.magnitudes: list[MagnitudeStream | None] = [None] * len(names)
        self.counts: NDArray[np.int64] | None = None


class GradientRecorder:
    """Records gradient samples in the metric store.

    Args:
        store: Metric store of the run.
        config: Selects the exported statistics.
        slots: Limits the slots with streams of their own.
    """

    def __init__(self, store: "MetricStore", config: "GradientConfig", *, slots: CardinalityLimiter) -> None:
        self._slots = slots
        self._store = store
        self._config = config
        self._known: dict[_Model, _Parameters] = {}
        # Time of the previous sample per network: start time of the streams that begin with the next one.
        self._last_sample: dict[_Model, int] = {}

    def record(self, sample: "GradientsMeasured", epoch: SpanIds | None) -> None:
        """Record the gradients of one sampled step.

        Args:
            sample: Gradient statistics of the step.
            epoch: Span that exemplars refer to; None records no exemplars.
        """
        model, at = (sample.env_id, sample.model_name), sample.time_unix_nano
        start = self._last_sample.get(model, self._store.start)
        self._last_sample[model] = at
        env = {} if sample.env_id is None else {attr.ENV_ID: sample.env_id}
        base = env | ({attr.MODEL_NAME: sample.model_name} if sample.model_name else {})
        parameters = self._follow(model, base, sample)
        self._statistics(model, parameters, sample)
        self._store.gauge(metric.GRADIENT_GLOBAL_NORM, base, at, sample.health.global_norm)
        self._store.gauge(metric.GRADIENT_HEALTH, base, at, sample.health.score)
        self._store.gauge(metric.READBACK_LAG, base, at, sample.lag)
        for slot, ratio in sample.seed_ratios.items():
            if self._slots.own(slot) is None:
                continue
            self._store.gauge(metric.SEED_GRADIENT_RATIO, env | {attr.SEED_SLOT: slot}, at, ratio)
        self._count(parameters, sample, start)
        self._add_magnitudes(parameters, sample, start, epoch)

    def _follow(self, model: _Model, base: dict[str, Any], sample: "GradientsMeasured") -> _Parameters:
        """Return the state of the network's parameters; end the streams of parameters that no longer exist."""
        parameters = self._known.get(model)
        if parameters is not None and parameters.names == sample.names:
            return parameters
        before = () if parameters is None else parameters.names
        for gone in set(before) - set(sample.names):
            for spec in (metric.GRADIENT_MAGNITUDE, metric.GRADIENT_NONFINITE):
                self._store.end(spec, base | {attr.PARAMETER_NAME: gone}, sample.time_unix_nano)
        if parameters is not None:
            self._store.end_gauges((model, before))
        quantiles = self._config.quantiles if sample.moments.buckets is not None else ()
        self._known[model] = _Parameters(sample.names, base, quantiles)
        return self._known[model]

    def _statistics(self, model: _Model, parameters: _Parameters, sample: "GradientsMeasured") -> None:
        at, group = sample.time_unix_nano, (model, sample.names)
        for statistic in self._config.statistics:
            values = _shown(sample, getattr(sample.moments, statistic))
            self._store.gauge_row(metric.GRADIENT_STATISTICS[statistic], parameters.rows, at, values, group=group)
        if self._config.weight_norms and sample.weight_norms is not None:
            norms = sample.weight_norms  # a tuple, if all rows are shown, so that NaN is exported
            exported = tuple(norms.tolist()) if sample.shown is None else _shown(sample, norms)
            self._store.gauge_row(metric.WEIGHT_NORM, parameters.rows, at, exported, group=group)
        if self._config.update_ratios and sample.update_ratios is not None:
            ratios = _shown(sample, sample.update_ratios)
            self._store.gauge_row(metric.UPDATE_RATIO, parameters.rows, at, ratios, group=group)
        if parameters.quantile_rows:
            found = sample.moments.quantile(self._config.quantiles)
            values = np.concatenate([_shown(sample, each) for each in found])
            self._store.gauge_row(metric.GRADIENT_QUANTILE, parameters.quantile_rows, at, values, group=group)

    def _count(self, parameters: _Parameters, sample: "GradientsMeasured", start: int) -> None:
        """Count non-finite elements; the stream of a row starts with the first sample that shows it, even at zero."""
        nonfinite = sample.moments.nonfinite
        shown = np.zeros(len(parameters.names), dtype=np.bool_)
        shown[slice(None) if sample.shown is None else sample.shown] = True
        for index in np.flatnonzero(shown & ((nonfinite > 0) | ~parameters.counted)).tolist():
            self._store.add(metric.GRADIENT_NONFINITE, parameters.rows[index], int(nonfinite[index]), start=start)
        parameters.counted |= shown

    def _add_magnitudes(
        self, parameters: _Parameters, sample: "GradientsMeasured", start: int, epoch: SpanIds | None
    ) -> None:
        moments, at = sample.moments, sample.time_unix_nano
        if moments.buckets is None:
            return
        counts = np.column_stack((moments.underflow, moments.buckets, moments.overflow))
        zeros, totals, largest = moments.zeros.tolist(), moments.abs_total.tolist(), moments.abs_max.tolist()
        with self._store.sections, self._store.lock:
            for index in _indices(sample):
                stream = parameters.magnitudes[index] or self._begin(parameters, index, moments, start)
                stream.zeros += zeros[index]
                stream.total += totals[index]
                most = largest[index]
                if isfinite(most):
                    stream.maximum = most if stream.maximum is None else max(stream.maximum, most)
                    if epoch is not None:
                        stream.sample = Sample(most, at, epoch)
            if parameters.counts is not None:
                shown = slice(None) if sample.shown is None else sample.shown
                parameters.counts[shown] += counts[shown]

    def _begin(self, parameters: _Parameters, index: int, moments: "Moments", start: int) -> MagnitudeStream:
        """Return the magnitude stream of a row and move its counts into the shared array.

        The stream may exist already, if the list of parameters changed and this one stayed.
        """
        span = moments.bucket_range
        assert span is not None  # noqa: S101 - there are buckets
        if parameters.counts is None:
            parameters.counts = np.zeros((len(parameters.names), span.size + 2), dtype=np.int64)
        row_counts = parameters.counts[index]
        stream = self._store.magnitude(
            metric.GRADIENT_MAGNITUDE,
            parameters.rows[index],
            lambda: MagnitudeStream(parameters.rows[index], start, span, row_counts),
        )
        row_counts[:] = stream.counts
        stream.counts = row_counts
        parameters.magnitudes[index] = stream
        return stream


def _indices(sample: "GradientsMeasured") -> "Iterable[int]":
    return range(len(sample.names)) if sample.shown is None else map(int, sample.shown)


def _shown(sample: "GradientsMeasured", values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the values with NaN (absent) in the rows that this sample does not export."""
    if sample.shown is None:
        return values
    kept = np.full(values.shape, np.nan)
    kept[sample.shown] = values[sample.shown]
    return kept
