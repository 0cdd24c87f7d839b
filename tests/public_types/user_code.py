"""A program of a user, with the types that its editor shows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import torch

import nissa
from nissa import (
    Backend,
    BlueprintAnalytics,
    BlueprintPrior,
    ConfigurationError,
    DecisionBrief,
    DiagnosticTracker,
    Environment,
    EpochSnapshot,
    EventType,
    GateResult,
    InvalidValueError,
    NissaError,
    NissaHub,
    Run,
    Seed,
    Severity,
    Stage,
    TelemetryConfig,
    TelemetryEvent,
)
from nissa.diagnostics.finding import Finding
from nissa.gradients.watch import Watch
from nissa.gradients.watch_group import WatchGroup
from nissa.testing import (
    Events,
    FakeClock,
    Findings,
    LogRecord,
    Metrics,
    Point,
    Records,
    Span,
    Spans,
    Telemetry,
    capture,
)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[torch.Tensor]) -> None:
    with nissa.start(
        profile="standard", service_name="digits", run_config={"lr": 0.1}, gradients__every_n_steps=1
    ) as run:
        assert_type(run, Run)
        assert_type(run.watch(model, optimizer), Watch)
        assert_type(run.watch(model, [optimizer]), Watch | WatchGroup)  # of one optimizer, or of several
        assert_type(run.watch(model, {"adamw": optimizer}), WatchGroup)
        for number in range(3):
            with run.epoch(number):
                for batch in batches:
                    loss: torch.Tensor = model(batch).mean()
                    run.log_loss(loss, scale=4)
                    assert_type(run.clip_grad_norm_(model.parameters(), 1.0), torch.Tensor)
                    run.log({"policy/entropy": loss}, kl=0.1)
                    run.log_items(samples=64, tokens=65_536)
                    run.log_clip(1.5, 1.0)
                snapshot = run.validate(loss=torch.tensor(0.5), accuracy=0.5, per_class_accuracy={0: 0.5})
                assert_type(snapshot, EpochSnapshot)
                assert_type(snapshot.narrative, str)
        assert_type(run.diagnose(), EpochSnapshot)
        assert_type(run.run_id, str)
        assert_type(run.directory, Path | None)
        assert_type(run.state_dict(), dict[str, Any])
        assert_type(run.flush(timeout=5), bool)
        assert_type(run.brief(action="keep", reason="still improving"), DecisionBrief)
        assert_type(run.features(), tuple[float, ...])
        assert_type(run.tracker, DiagnosticTracker)
        assert_type(run.analytics, BlueprintAnalytics)
        assert_type(run.analytics.prior("conv"), BlueprintPrior)
        assert_type(nissa.signals_to_features(run.tracker), tuple[float, ...])
        run.on_finding(report)
    assert_type(nissa.current_run(), Run | None)


def report(finding: Finding) -> None:
    assert_type(finding.layers, tuple[str, ...])
    assert_type(finding.sentence, str)


def grow(run: Run | Environment, module: torch.nn.Module) -> None:
    seed = run.germinate("seed-1", blueprint="conv_light", slot="r0c1", module=module)
    assert_type(seed, Seed)
    assert_type(seed.stage, Stage)
    seed.advance(Stage.TRAINING)
    seed.gate(GateResult(gate="G2", passed=True, score=0.8, checks_failed=("gain",)))
    seed.advance("blending", alpha=0.4)
    seed.fossilize(improvement=0.025)
    seed.cull(reason="no improvement", improvement=-0.003)
    assert_type(run.resume_seed(seed.state_dict()), Seed)


def hubs(hub: NissaHub) -> None:
    assert_type(nissa.get_hub(), NissaHub)
    assert_type(nissa.reset_hub(), NissaHub)
    backend: Backend = nissa.MemoryBackend()
    assert_type(hub.add_backend(backend), str)
    event = TelemetryEvent(EventType.SEED_CULLED, seed_id="s", severity=Severity.INFO)
    assert_type(event.timestamp, datetime)
    hub.emit(event)
    assert_type(hub.flush(timeout=5), bool)
    assert_type(TelemetryConfig.from_profile("diagnostic", {"strict": True}), TelemetryConfig)
    try:
        nissa.start(config=Path("nissa.yaml"))
    except ConfigurationError as error:
        known: NissaError = error
        assert_type(known.args, tuple[Any, ...])
    except InvalidValueError:
        pass


def collected(model: torch.nn.Module) -> None:
    pending = nissa.collect_gradients(model.named_parameters())
    assert_type(pending, nissa.PendingGradients)
    assert_type(pending.result(), nissa.GradientStatistics)


def test_of_a_user(nissa_telemetry: Telemetry, nissa_clock: FakeClock) -> None:
    nissa_clock.advance(0.5)
    assert_type(nissa_clock(), int)
    assert_type(nissa_telemetry.spans, Spans)
    assert_type(nissa_telemetry.spans.named("seed.blending"), Spans)
    assert_type(nissa_telemetry.spans.with_attributes({"nissa.seed.id": "s"}).one(), Span)
    assert_type(nissa_telemetry.spans[0].attributes, dict[str, Any])
    assert_type(nissa_telemetry.metrics, Metrics)
    assert_type(nissa_telemetry.metrics.stream("nissa.loss")[-1], Point)
    assert_type(nissa_telemetry.metrics.values("nissa.loss", {"nissa.phase": "train"}), list[Any])
    assert_type(nissa_telemetry.events, Events)
    assert_type(nissa_telemetry.events.of("SEED_CULLED").one(), TelemetryEvent)
    assert_type(nissa_telemetry.findings, Findings)
    assert_type(nissa_telemetry.findings.raised[0], Finding)
    assert_type(nissa_telemetry.logs, Records)
    assert_type(nissa_telemetry.logs.one(), LogRecord)
    with capture(clock=nissa_clock) as telemetry:
        assert_type(telemetry, Telemetry)
        assert_type(telemetry.spans.names, dict[str, int])


def resumed(state: Mapping[str, Any]) -> Run:
    return nissa.start(resume=state, replace=True)
