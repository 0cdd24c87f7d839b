"""Results of a demo as data, for ``nissa demo --json``, tests and the closing lines."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nissa.demo.policy import mean
from nissa.seeds.stages import FINAL

if TYPE_CHECKING:
    from nissa.demo.graft import GateRecord, Graft
    from nissa.demo.trainer import Trainer

INTERRUPTED = "interrupted"
"""Outcome of a seed that was neither fossilized nor culled at the end of the demo."""


@dataclass(frozen=True)
class StageReport:
    """Entry of a seed into a stage, by epoch and time."""

    stage: str
    epoch: int
    time_unix_nano: int


@dataclass(frozen=True)
class GateReport:
    """Result of a gate; names of checks contain the measured values."""

    gate: str
    epoch: int
    stage: str
    passed: bool
    score: float | None
    checks_passed: tuple[str, ...]
    checks_failed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """Timeline and outcome of a seed; ``improvement`` is a fraction (0.012 is 1.2 points of accuracy)."""

    seed_id: str
    env_id: int
    slot: str
    blueprint: str
    parameters: int
    outcome: str
    improvement: float | None
    reason: str | None
    trace_id: str
    stages: tuple[StageReport, ...]
    gates: tuple[GateReport, ...]


@dataclass(frozen=True, kw_only=True)
class EnvironmentReport:
    """Result of an environment: accuracy before the first seed (baseline) and at the end."""

    env_id: int
    epochs: int
    baseline_accuracy: float | None
    final_accuracy: float
    seeds: tuple[SeedReport, ...]


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Results of a demo and the location of its telemetry.

    ``directory`` is None if the telemetry was exported instead of written to files. ``page`` is the path of the HTML
    report. If none was written, ``no_page`` is the reason.
    """

    run_id: str
    directory: str | None
    destination: str
    profile: str
    seed: int
    seconds: float
    environments: tuple[EnvironmentReport, ...]
    page: str | None = None
    no_page: str | None = None

    @property
    def seeds(self) -> tuple[SeedReport, ...]:
        """Seeds of all environments."""
        return tuple(seed for environment in self.environments for seed in environment.seeds)

    def with_outcome(self, outcome: str) -> list[SeedReport]:
        """Return the seeds with this outcome, sorted by decreasing improvement."""
        chosen = [seed for seed in self.seeds if seed.outcome == outcome]
        return sorted(chosen, key=lambda seed: -(seed.improvement or 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as data that JSON can represent."""
        return asdict(self)


def report_environment(trainer: "Trainer") -> EnvironmentReport:
    """Return the result of an environment."""
    accuracies, window = trainer.accuracies, trainer.recipe.policy.window
    before = accuracies[: trainer.grafts[0].epoch + 1][-window:] if trainer.grafts else []
    return EnvironmentReport(
        env_id=trainer.env_id,
        epochs=len(accuracies),
        baseline_accuracy=mean(before) if before else None,
        final_accuracy=mean(accuracies[-window:]),
        seeds=tuple(_seed(graft, trainer.env_id) for graft in trainer.grafts),
    )


def _seed(graft: "Graft", env_id: int) -> SeedReport:
    times = dict(graft.handle.history)
    return SeedReport(
        seed_id=graft.handle.seed_id,
        env_id=env_id,
        slot=graft.slot,
        blueprint=graft.blueprint,
        parameters=sum(parameter.numel() for parameter in graft.module.parameters()),
        outcome=graft.stage.label if graft.stage in FINAL else INTERRUPTED,
        improvement=graft.improvement,
        reason=graft.reason,
        trace_id=graft.handle.trace_id,
        stages=tuple(StageReport(stage, epoch, times[stage]) for stage, epoch in graft.stage_epochs.items()),
        gates=tuple(_gate(record) for record in graft.gates),
    )


def _gate(record: "GateRecord") -> GateReport:
    result = record.result
    return GateReport(
        gate=result.gate,
        epoch=record.epoch,
        stage=record.stage,
        passed=result.passed,
        score=result.score,
        checks_passed=result.checks_passed,
        checks_failed=result.checks_failed,
    )
