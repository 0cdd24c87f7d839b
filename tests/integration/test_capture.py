"""Runs whose telemetry a test keeps in memory."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from opentelemetry import trace

import nissa
from nissa import EventType, Stage
from nissa.testing import FakeClock, Telemetry, capture
from tests.integration.conftest import Toy

TRAIN = {"nissa.phase": "train"}


def train(toy: Toy, steps: int = 3, **settings: Any) -> list[float]:
    """Train as a user's program does, which knows nothing of the test."""
    with nissa.start("diagnostic", console__enabled=False, **settings) as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            losses = [toy.step(run).item() for _ in range(steps)]
            run.validate(loss=0.5, accuracy=0.75)
        seed = run.germinate("s", blueprint="conv", slot="a")
        seed.advance(Stage.TRAINING)
        seed.cull(reason="no gain")
    return losses


def test_a_run_of_the_code_under_test_is_kept_in_memory(toy: Toy, nissa_telemetry: Telemetry) -> None:
    weight = next(toy.model.parameters())
    norms: list[float] = []

    def look(*_: object) -> None:
        assert weight.grad is not None
        norms.append(weight.grad.double().norm().item())

    toy.optimizer.register_step_pre_hook(look)
    losses = train(toy)
    assert nissa_telemetry.metrics.values("nissa.loss", TRAIN) == pytest.approx(losses)
    assert nissa_telemetry.metrics.last("nissa.loss", {"nissa.phase": "validation"}) == 0.5
    of_layer = {"nissa.parameter.name": "0.weight"}
    assert nissa_telemetry.metrics.values("nissa.gradient.norm", of_layer) == pytest.approx(norms, rel=1e-5)
    assert nissa_telemetry.metrics.stream("nissa.step.duration")[-1].count == 2
    validation = nissa_telemetry.spans.named("validation").one()
    epoch = nissa_telemetry.spans.named("epoch").with_attributes({"nissa.epoch": 0}).one()
    assert validation.parent_id == epoch.span_id
    seed = nissa_telemetry.spans.named("seed").one()
    assert {"seed.germinated", "seed.training", "seed.culled"} <= set(nissa_telemetry.spans.children_of(seed).names)
    assert nissa_telemetry.events.of(EventType.SEED_CULLED).one().data["reason"] == "no gain"
    assert nissa_telemetry.logs.named("nissa.narrative").one().trace_id == epoch.trace_id
    assert not Path("nissa-runs").exists()


def test_telemetry_is_complete_while_the_run_goes_on(
    nissa_run: nissa.Run, nissa_telemetry: Telemetry, toy: Toy
) -> None:
    nissa_run.watch(toy.model, toy.optimizer)
    for number in range(1, 4):
        toy.step(nissa_run)
        assert len(nissa_telemetry.metrics.values("nissa.loss", TRAIN)) == number
    nissa_run.germinate("s", blueprint="conv")
    assert nissa_telemetry.spans.named("seed.started").one().attributes["nissa.seed.id"] == "s"
    nissa_telemetry.spans.named("seed").none()
    assert nissa_telemetry.events.of("SEED_GERMINATED").one().seed_id == "s"


def test_times_are_those_of_the_clock(nissa_clock: FakeClock, nissa_telemetry: Telemetry, toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            for _ in range(3):
                nissa_clock.advance(0.25)
                toy.step(run)
    assert nissa_telemetry.spans.named("epoch").one().duration == 0.75
    steps = nissa_telemetry.metrics.stream("nissa.step")
    assert [(point.value, nissa_clock.seconds(point.time)) for point in steps] == [(0, 0.25), (1, 0.5), (2, 0.75)]
    assert nissa_telemetry.metrics.stream("nissa.step.duration")[-1].sum == pytest.approx(0.5)


def test_a_destination_of_the_environment_receives_nothing(
    monkeypatch: pytest.MonkeyPatch, nissa_telemetry: Telemetry, toy: Toy
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    before = trace.get_tracer_provider()
    train(toy)
    nissa_telemetry.spans.named("epoch").one()
    assert trace.get_tracer_provider() is before
    assert not [each for each in threading.enumerate() if each.name.startswith("nissa-send")]


def test_findings_and_log_records_are_captured(nissa_telemetry: Telemetry, toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False, logs__capture=True) as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            toy.step(run)
            logging.getLogger("mine").warning("look at this")
            run.log_loss(torch.tensor(float("nan")))
            toy.step()
            run.validate(loss=1.0)
    finding = nissa_telemetry.findings.named("nonfinite_loss").raised.one()
    assert finding.step == 1
    record = nissa_telemetry.logs.where(lambda each: each.body == "look at this").one()
    assert record.trace_id == nissa_telemetry.spans.named("epoch").one().trace_id


def test_several_runs_are_captured_and_an_open_one_is_ended(toy: Toy) -> None:
    with capture() as outer:
        with capture() as inner:
            train(toy)
        run = nissa.start("minimal", console__enabled=False)
    assert run.closed
    assert inner.events.of(EventType.TRAINING_ENDED).count(1)
    inner.spans.named("epoch").one()
    outer.spans.none()
    assert "nissa.testing" not in nissa.get_hub().backends
    with nissa.start("minimal", console__enabled=False, run_id="later"):
        pass
    assert Path("nissa-runs/later").is_dir()


def test_a_run_that_is_active_before_is_left_alone() -> None:
    with nissa.start("minimal", console__enabled=False, run_id="outer") as run:
        with capture() as telemetry:
            run.germinate("s", blueprint="conv")
            telemetry.events.of("SEED_GERMINATED").one()
        assert not run.closed


def test_no_sample_of_short_steps_is_dropped(toy: Toy, nissa_telemetry: Telemetry) -> None:
    train(toy, steps=300)
    assert len(nissa_telemetry.metrics.values("nissa.gradient.norm", {"nissa.parameter.name": "0.weight"})) == 300


def test_the_folder_of_a_run_is_read_alike() -> None:
    train(Toy(), run_id="r")
    with capture() as memory:
        train(Toy(), run_id="r")
    files = Telemetry.from_folder(Path("nissa-runs/r"))
    assert files.spans.names == memory.spans.names
    assert files.logs.names == memory.logs.names
    for metric in ("nissa.step", "nissa.learning_rate"):
        assert files.metrics.values(metric) == memory.metrics.values(metric)
    norm = {"nissa.parameter.name": "2.bias"}
    assert files.metrics.values("nissa.gradient.norm", norm) == memory.metrics.values("nissa.gradient.norm", norm)


def test_a_folder_that_is_no_run_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(nissa.ConfigurationError, match="no spool"):
        Telemetry.from_folder(tmp_path)
    (tmp_path / "traces.jsonl").write_text('{"resourceSpans": [')
    with pytest.raises(ValueError, match=r"Damaged lines: traces\.jsonl:1"):
        _ = Telemetry.from_folder(tmp_path).spans
