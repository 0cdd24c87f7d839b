"""From events and measurements to metrics."""

from typing import TYPE_CHECKING, Any, Final

from nissa.backends.otel.gradient_recorder import GradientRecorder
from nissa.backends.otel.labels import Labels, check_name
from nissa.backends.otel.store import Sample
from nissa.events import EventType, SpanIds, Stage, TelemetryEvent
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.backends.otel.store import MetricStore
    from nissa.hub.measurements import GradientsMeasured, StepMeasured, StepSkipped, ValidationMeasured
    from nissa.profiles import TelemetryConfig

_ENDS: Final = (Stage.FOSSILIZED, Stage.CULLED)


class MetricRecorder:
    """Keeps the metric store up to date.

    Args:
        store: Where metrics are kept.
        config: Which statistics are exported.
        dropped: Whether a sampler has dropped an environment's epoch, to which no exemplar must lead then.
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
        self._gradients = GradientRecorder(store, config.gradients)
        self._blueprints = Labels(config.limits.max_blueprints)
        self._gates = Labels(config.limits.max_gate_checks)
        self._checks = Labels(config.limits.max_gate_checks)
        self._counted: dict[SpanIds, Stage] = {}
        self._ending: dict[SpanIds, TelemetryEvent] = {}

    def event(self, event: TelemetryEvent) -> None:
        """Take an event."""
        env = _env(event.env_id)
        if event.refused is not None:
            self._store.add(metric.SEED_REFUSED, env | self._blueprint(event))
            return
        if event.event_type in {EventType.SEED_GERMINATED, EventType.CHECKPOINT_LOADED} and event.seed is not None:
            self._count(event, env)
        elif event.event_type == EventType.SEED_STAGE_CHANGED and event.seed is not None:
            self._transition(event, env)
        elif event.event_type in {EventType.SEED_FOSSILIZED, EventType.SEED_CULLED} and event.seed is not None:
            self._lived(event.seed.ids, event)
        elif event.event_type == EventType.SEED_GATE_EVALUATED:
            self._gate(event, env)
        elif event.event_type in {EventType.RED_FLAG_RAISED, EventType.RED_FLAG_CLEARED}:
            flag = env | {attr.RED_FLAG_NAME: str(event.data.get("flag"))}
            self._store.gauge(metric.RED_FLAG, flag, event.time_unix_nano, int(bool(event.data.get("up"))))
        elif event.event_type == EventType.EPOCH_STARTED and event.epoch is not None:
            self._store.gauge(metric.EPOCH, env, event.time_unix_nano, event.epoch)
        elif event.event_type == EventType.TRAINING_ENDED:
            for ids in list(self._ending):
                self._lived(ids)
        self._alpha(event, env)

    def step(self, step: "StepMeasured") -> None:
        """Take one step."""
        env, at = _env(step.env_id), step.time_unix_nano
        model = _model(step.env_id, step.model_name)
        if step.primary:
            self._store.gauge(metric.STEP, env, at, step.step)
        if step.duration is not None:
            epoch = self._epoch(step)
            sample = Sample(step.duration, at, epoch) if epoch else None
            self._store.observe(metric.STEP_DURATION, env, step.duration, sample=sample)
        self._store.gauge(metric.LOSS, model | {attr.PHASE: "train"}, at, step.loss)
        self._store.gauge(metric.LEARNING_RATE, model, at, step.learning_rate)
        self._store.gauge(metric.CLIP_NORM, model, at, step.clip_norm)
        self._store.gauge(metric.CLIP_FACTOR, model, at, step.clip_factor)
        self._store.gauge(metric.OVERHEAD_RATIO, env, at, step.overhead)
        self._store.gauge(metric.SAMPLING_INTERVAL, model, at, step.sampling_interval)

    def skipped(self, step: "StepSkipped") -> None:
        """Add steps that did not happen."""
        self._store.add(metric.STEP_SKIPPED, _model(step.env_id, step.model_name), step.count)

    def validation(self, seen: "ValidationMeasured") -> None:
        """Take one validation."""
        env, at = _env(seen.env_id), seen.time_unix_nano
        self._store.gauge(metric.LOSS, env | {attr.PHASE: "validation"}, at, seen.loss)
        self._store.gauge(metric.ACCURACY, env | {attr.PHASE: "validation"}, at, seen.accuracy)
        self._store.gauge(metric.ACCURACY, env | {attr.PHASE: "train"}, at, seen.train_accuracy)
        for name, accuracy in seen.per_class_accuracy.items():
            self._store.gauge(metric.CLASS_ACCURACY, env | {attr.CLASS_NAME: name}, at, accuracy)
        for method, sharpness in seen.sharpness.items():
            self._store.gauge(metric.SHARPNESS, env | {attr.SHARPNESS_METHOD: method}, at, sharpness)
        self._store.gauge(metric.STABILITY_MARGIN, env, at, seen.stability_margin)
        for name, raised in seen.red_flags.items():
            self._store.gauge(metric.RED_FLAG, env | {attr.RED_FLAG_NAME: name}, at, int(raised))

    def gradients(self, sample: "GradientsMeasured") -> None:
        """Take the gradients of one sampled step."""
        self._gradients.take(sample, self._epoch(sample))

    def _epoch(self, measured: "StepMeasured | GradientsMeasured") -> SpanIds | None:
        """Return the epoch that an exemplar of a measurement leads to, None where there is no such trace."""
        ids = measured.epoch_ids
        return None if ids is None or self._dropped(measured.env_id, ids) else ids

    def _count(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        """Count a seed in its stage, in place of where it was counted before."""
        assert event.seed is not None  # noqa: S101 - the caller looked
        before = self._counted.get(event.seed.ids)
        if before is not None:
            self._store.add(metric.SEED_COUNT, env | {attr.SEED_STAGE: before.label}, -1)
        self._counted[event.seed.ids] = event.seed.stage
        self._store.add(metric.SEED_COUNT, env | {attr.SEED_STAGE: event.seed.stage.label})

    def _transition(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        assert event.seed is not None  # noqa: S101 - the caller looked
        change = {attr.SEED_FROM: event.data["from"], attr.SEED_TO: event.data["to"]}
        self._store.add(metric.SEED_TRANSITIONS, env | change | self._blueprint(event))
        self._count(event, env)
        if event.seed.stage in _ENDS:
            self._ending[event.seed.ids] = event
        else:
            self._lived(event.seed.ids)

    def _lived(self, ids: SpanIds, end: TelemetryEvent | None = None) -> None:
        """Note how long a life was, once; its end may be told by a stage change alone."""
        change = self._ending.pop(ids, None)
        told = end or change
        if change is not None and told is not None and told.seed is not None:
            outcome = {attr.SEED_OUTCOME: told.seed.stage.label}
            attributes = _env(told.env_id) | outcome | self._blueprint(told)
            self._store.observe(metric.SEED_LIFESPAN, attributes, told.seed.epochs_total)

    def _blueprint(self, event: TelemetryEvent) -> dict[str, Any]:
        return {attr.BLUEPRINT_ID: self._blueprints.of(event.seed.blueprint_id if event.seed else None)}

    def _gate(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        gate = env | {attr.GATE_NAME: self._gates.of(event.data.get("gate"))}
        self._store.add(metric.GATE_EVALUATIONS, gate | {attr.GATE_PASSED: bool(event.data.get("passed"))})
        for check in event.data.get("checks_failed") or ():
            failed = {attr.GATE_CHECK: self._checks.of(check_name(str(check)))}
            self._store.add(metric.GATE_FAILED_CHECKS, gate | failed | self._blueprint(event))

    def _alpha(self, event: TelemetryEvent, env: dict[str, Any]) -> None:
        if event.seed is not None and event.seed.slot_id is not None:
            slot = {attr.SEED_SLOT: event.seed.slot_id}
            self._store.gauge(metric.SEED_ALPHA, env | slot, event.time_unix_nano, event.seed.alpha)


def _env(env_id: str | None) -> dict[str, Any]:
    return {} if env_id is None else {attr.ENV_ID: env_id}


def _model(env_id: str | None, model_name: str | None) -> dict[str, Any]:
    return _env(env_id) | ({} if model_name is None else {attr.MODEL_NAME: model_name})
