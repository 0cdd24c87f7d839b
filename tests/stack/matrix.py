"""What must arrive where: one row for each thing that telemetry has a name for.

The names are spelled out, since they are what dashboards and searches outside of this repository rely on: a name that
changes in `nissa.semconv` alone is found by `test_arrival`, and so is one that is declared and has no row.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Place(StrEnum):
    """Where telemetry can be seen."""

    PROMETHEUS = "Prometheus"
    JAEGER = "Jaeger"
    LINES = "the collector's logs.jsonl"


@dataclass(frozen=True, slots=True)
class Row:
    """A thing that must arrive.

    Args:
        what: ``resource``, ``metric``, ``span``, ``span event``, ``event`` (a log record with a name) or ``log record``.
        name: Its name as it is sent; a resource and a log record have none.
        attributes: Keys that are seen on it, in at least one of its points, spans or records each.
    """

    what: str
    name: str
    attributes: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it must be seen."""
        return PLACES[self.what]


PLACES: Final = {
    "resource": tuple(Place),
    "metric": (Place.PROMETHEUS,),
    "span": (Place.JAEGER,),
    "span event": (Place.JAEGER,),
    "event": (Place.LINES,),
    "log record": (Place.LINES,),
}

_ENV: Final = "nissa.env.id "
_MODEL: Final = _ENV + "nissa.model.name "
_LAYER: Final = _MODEL + "nissa.parameter.name "
_RUN: Final = _ENV + "nissa.run.id "
_EPOCH: Final = _RUN + "nissa.epoch "
_NAMED: Final = _RUN + "nissa.seed.id nissa.seed.slot nissa.seed.stage nissa.blueprint.id "
_SEED: Final = _NAMED + "nissa.seed.attempt nissa.seed.parameters "
_STAGE: Final = _SEED + "nissa.epoch "
_BLENDED: Final = _SEED + "nissa.seed.alpha "
_BLENDED_STAGE: Final = _BLENDED + "nissa.epoch "
_FINDING: Final = " ".join(
    f"nissa.finding.{each}"
    for each in ("evidence", "layers", "layer_count", "value", "limit", "certainty", "advice", "first_step")
)
_PENDING: Final = "nissa.span.pending "
_GATE: Final = (
    "nissa.gate.name nissa.gate.passed nissa.gate.score nissa.gate.checks_passed nissa.gate.checks_failed "
    "nissa.gate.message "
)
_TYPE: Final = "nissa.run.id nissa.event.type "

_PROCESS: Final = (
    "process.command_args process.pid process.working_directory process.runtime.name process.runtime.version host.name "
    "host.arch host.cpu.model.name nissa.cpu.count os.type os.version"
)

ROWS: Final = (
    Row("resource", "", "nissa.run.id nissa.profile dl.rank dl.local_rank dl.world_size"),
    Row("metric", "process.memory.usage"),
    Row("metric", "nissa.device.memory", "nissa.device nissa.device.name nissa.memory.state"),
    Row("metric", "nissa.step", _ENV),
    Row("metric", "nissa.epoch", _ENV),
    Row("metric", "nissa.step.duration", _ENV),
    Row("metric", "nissa.step.phase.duration", _ENV + "nissa.step.phase"),
    Row("metric", "nissa.step.skipped", _MODEL),
    Row("metric", "nissa.step.skew", _MODEL),
    Row("metric", "nissa.replica.comparisons", _MODEL + "nissa.replica.outcome"),
    Row("metric", "nissa.replica.mismatch", _MODEL),
    Row("metric", "nissa.backward.value", _MODEL),
    Row("metric", "nissa.loss", _MODEL + "nissa.phase"),
    Row("metric", "nissa.accuracy", _ENV + "nissa.phase"),
    Row("metric", "nissa.class.accuracy", _ENV + "nissa.class.name"),
    Row("metric", "nissa.learning_rate", _MODEL + "nissa.parameter_group.index"),
    Row("metric", "nissa.clip.norm", _MODEL),
    Row("metric", "nissa.clip.factor", _MODEL),
    Row("metric", "nissa.scalar", _ENV + "nissa.scalar.name"),
    Row("metric", "nissa.items", _ENV + "nissa.item.kind"),
    Row("metric", "nissa.gradient.norm", _LAYER),
    Row("metric", "nissa.gradient.mean", _LAYER),
    Row("metric", "nissa.gradient.std", _LAYER),
    Row("metric", "nissa.gradient.abs_max", _LAYER),
    Row("metric", "nissa.gradient.zero_fraction", _LAYER),
    Row("metric", "nissa.gradient.vanishing_fraction", _LAYER),
    Row("metric", "nissa.gradient.exploding_fraction", _LAYER),
    Row("metric", "nissa.gradient.quantile", _LAYER + "nissa.quantile"),
    Row("metric", "nissa.gradient.magnitude", _LAYER),
    Row("metric", "nissa.gradient.nonfinite", _LAYER),
    Row("metric", "nissa.gradient.global_norm", _MODEL),
    Row("metric", "nissa.gradient.health", _MODEL),
    Row("metric", "nissa.weight.norm", _LAYER),
    Row("metric", "nissa.update.ratio", _LAYER),
    Row("metric", "nissa.seed.count", _ENV + "nissa.seed.stage"),
    Row("metric", "nissa.seed.transitions", _ENV + "nissa.seed.from nissa.seed.to nissa.blueprint.id"),
    Row("metric", "nissa.seed.refused_transitions", _ENV + "nissa.blueprint.id"),
    Row("metric", "nissa.seed.unsampled", _ENV),
    Row("metric", "nissa.seed.gate.evaluations", _ENV + "nissa.gate.name nissa.gate.passed"),
    Row("metric", "nissa.seed.gate.failed_checks", _ENV + "nissa.gate.name nissa.gate.check nissa.blueprint.id"),
    Row("metric", "nissa.seed.lifespan", _ENV + "nissa.seed.outcome nissa.blueprint.id"),
    Row("metric", "nissa.seed.alpha", _ENV + "nissa.seed.slot"),
    Row("metric", "nissa.seed.gradient_ratio", _ENV + "nissa.seed.slot"),
    Row("metric", "nissa.red_flag", _ENV + "nissa.red_flag.name"),
    Row("metric", "nissa.blueprint.accuracy_delta", "nissa.blueprint.id"),
    Row("metric", "nissa.blueprint.compute_cost", "nissa.blueprint.id"),
    Row("metric", "nissa.blueprint.parameters", "nissa.blueprint.id"),
    Row("metric", "nissa.sharpness", _ENV + "nissa.sharpness.method"),
    Row("metric", "nissa.stability_margin", _ENV),
    Row("metric", "nissa.hub.events", "nissa.backend.name nissa.event.type nissa.event.outcome"),
    Row("metric", "nissa.hub.queue.size", "nissa.backend.name"),
    Row("metric", "nissa.export.items", "nissa.signal nissa.export.outcome"),
    Row("metric", "nissa.journal.size"),
    Row("metric", "nissa.readback.lag", _MODEL),
    Row("metric", "nissa.readback.dropped"),
    Row("metric", "nissa.overhead.ratio", _ENV),
    Row("metric", "nissa.sampling.interval", _MODEL),
    Row(
        "span",
        "seed",
        _BLENDED + "nissa.seed.outcome nissa.seed.improvement nissa.seed.cull_reason nissa.seed.epochs "
        "nissa.seed.adopted nissa.seed.isolation_violations",
    ),
    Row("span", "seed.started", _SEED + _PENDING + "nissa.seed.adopted"),
    Row("span", "seed.germinated", _SEED),
    Row("span", "seed.germinated.started", _SEED + _PENDING),
    Row("span", "seed.training", _BLENDED_STAGE + "nissa.seed.outcome"),
    Row("span", "seed.training.started", _STAGE + _PENDING),
    Row("span", "seed.blending", _BLENDED_STAGE),
    Row("span", "seed.blending.started", _BLENDED_STAGE + _PENDING),
    Row("span", "seed.shadowing", _BLENDED_STAGE),
    Row("span", "seed.shadowing.started", _BLENDED_STAGE + _PENDING),
    Row("span", "seed.probationary", _BLENDED_STAGE),
    Row("span", "seed.probationary.started", _BLENDED_STAGE + _PENDING),
    Row("span", "seed.fossilized", _BLENDED_STAGE),
    Row("span", "seed.culled", _STAGE),
    Row("span", "seed.embargoed", _STAGE),
    Row("span", "seed.embargoed.started", _STAGE + _PENDING),
    Row("span", "seed.resetting", _STAGE),
    Row("span", "seed.resetting.started", _STAGE + _PENDING),
    Row("span", "seed.dormant", _STAGE),
    Row("span", "gate", _BLENDED_STAGE + _GATE),
    Row("span", "run", "nissa.run.id"),
    Row("span", "run.started", "nissa.run.id " + _PENDING),
    Row("span", "epoch", _EPOCH),
    Row("span", "epoch.started", _EPOCH + _PENDING),
    Row("span", "validation", _EPOCH + "nissa.loss nissa.accuracy nissa.narrative"),
    Row("span", "checkpoint", _EPOCH + "nissa.checkpoint.path nissa.checkpoint.saved"),
    Row("span", "red_flag", _EPOCH + "nissa.step nissa.red_flag.name nissa.event.message " + _FINDING),
    Row("span", "step", _RUN + "nissa.step nissa.loss"),
    Row("span event", "nissa.seed.gate", _GATE),
    Row("span event", "nissa.seed.gate.failed_check", "nissa.gate.check"),
    Row("span event", "nissa.seed.refused", "nissa.seed.refusal nissa.seed.to"),
    Row("span event", "nissa.seed.isolation_violation", "nissa.seed.isolation_violations nissa.event.message"),
    Row("event", "nissa.seed.stage", _NAMED + _TYPE + "nissa.seed.from nissa.seed.to"),
    Row("event", "nissa.seed.gate", _BLENDED + _GATE),
    Row("event", "nissa.seed.refused", _SEED + "nissa.seed.refusal nissa.seed.to"),
    Row(
        "event",
        "nissa.seed.isolation_violation",
        _SEED + "nissa.seed.isolation_violations nissa.event.message",
    ),
    Row("event", "nissa.narrative", _EPOCH + "nissa.loss nissa.accuracy nissa.narrative nissa.red_flag.name"),
    Row("event", "nissa.event.seed_germinated", _NAMED + _TYPE + "nissa.epoch"),
    Row("event", "nissa.event.seed_fossilized", _NAMED + _TYPE),
    Row("event", "nissa.event.seed_culled", _NAMED + _TYPE),
    Row("event", "nissa.event.training_started", _TYPE),
    Row("event", "nissa.event.training_ended", _TYPE),
    Row("event", "nissa.event.process_described", _TYPE + _PROCESS),
    Row("event", "nissa.event.checkpoint_saved", _EPOCH + _TYPE),
    Row("event", "nissa.event.checkpoint_loaded", _NAMED + _TYPE),
    Row("event", "nissa.event.plateau_detected", _EPOCH + _TYPE),
    Row("event", "nissa.event.improvement_detected", _EPOCH + _TYPE),
    Row("event", "nissa.event.performance_degradation", _EPOCH + _TYPE),
    Row("event", "nissa.event.gradient_anomaly", _ENV + _TYPE + "nissa.finding.layers nissa.finding.layer_count"),
    Row("event", "nissa.event.red_flag_raised", _EPOCH + _TYPE + "nissa.red_flag.name " + _FINDING),
    Row(
        "event",
        "nissa.event.red_flag_cleared",
        _EPOCH + _TYPE + "nissa.red_flag.name nissa.finding.advice nissa.finding.certainty",
    ),
    Row("event", "nissa.event.torch_warning", _EPOCH + _TYPE),
    Row("event", "nissa.event.anything", _TYPE),
    Row("log record", "", _EPOCH),
)
