"""Recorder that converts events and measurements to metrics."""

from typing import TYPE_CHECKING, Any, Final

from nissa.events import EventType, SpanIds, TelemetryEvent
from nissa.otel.metrics.gradient_recorder import GradientRecorder
from nissa.otel.metrics.labels import check_name
from nissa.otel.metrics.store import Sample, key_of
from nissa.seeds.stages import ALIVE, FINAL
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.cardinality import CardinalityLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.config import TelemetryConfig
    from nissa.hub.measurements import GradientsMeasured, StepMeasured, StepSkipped, ValidationMeasured
    from nissa.otel.metrics.store import MetricStore

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
        if self.environments.own(step.env_id) is None:
            return
        if step.primary:
            self._store.gauge(metric.STEP, env, at, step.step)
        self._store.gauge(metric.LOSS, model | {attr.PHASE: "train"}, at, step.loss)
        self._store.gauge(metric.LEARNING_RATE, model, at, step.learning_rate)
        self._store.gauge(metric.CLIP_NORM, model, at, step.clip_norm)
        self._store.gauge(metric.CLIP_FACTOR, model, at, step.clip_factor)
        self._store.gauge(metric.OVERHEAD_RATIO, env, at, step.overhead)
        self._store.gauge(metric.SAMPLING_INTERVAL, model, at, step.sampling_interval)

    def skipped(self, step: "StepSkipped") -> None:
        """Count optimizer steps that loss scaling skipped."""
        self._store.add(metric.STEP_SKIPPED, self._model(step.env_id, step.model_name), step.count)

    def validation(self, seen: "ValidationMeasured") -> None:
        """Record a validation: losses, accuracies, sharpness, red flags."""
        if self.environments.own(seen.env_id) is None:
            return
        env, at = self._env(seen.env_id), seen.time_unix_nano
        self._store.gauge(metric.LOSS, env | {attr.PHASE: "validation"}, at, seen.loss)
        self._store.gauge(metric.ACCURACY, env | {attr.PHASE: "validation"}, at, seen.accuracy)
        self._store.gauge(metric.ACCURACY, env | {attr.PHASE: "train"}, at, seen.train_accuracy)
        for name, accuracy in seen.per_class_accuracy.items():
            if self._classes.own(name) is None:
                continue
            self._store.gauge(metric.CLASS_ACCURACY, env | {attr.CLASS_NAME: name}, at, accuracy)
        for method, sharpness in seen.sharpness.items():
            self._store.gauge(metric.SHARPNESS, env | {attr.SHARPNESS_METHOD: method}, at, sharpness)
        self._store.gauge(metric.STABILITY_MARGIN, env, at, seen.stability_margin)
        for name, raised in seen.red_flags.items():
            self._store.gauge(metric.RED_FLAG, env | {attr.RED_FLAG_NAME: name}, at, int(raised))

    def gradients(self, sample: "GradientsMeasured") -> None:
        """Record the gradients of one sampled step."""
        if self.environments.own(sample.env_id) is not None:
            self._gradients.take(sample, self._epoch(sample))

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
