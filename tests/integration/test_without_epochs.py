"""Loops without epochs: diagnoses, narratives, durations, findings and lines on the console."""

import math
from pathlib import Path

import pytest
import torch

import nissa
from nissa import EventType
from nissa.hub.measurements import StepMeasured
from nissa.recordings.values import attributes
from nissa.testing import FakeClock, Telemetry
from tests.integration.conftest import Toy
from tests.support import points, records

pytestmark = pytest.mark.usefixtures("patient")


def test_a_diagnosis_is_that_of_the_steps_so_far(toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        losses = [float(toy.step(run)) for _ in range(7)]
        snapshot = run.diagnose()
        norms = [float(each.grad.norm()) for each in toy.model.parameters() if each.grad is not None]
        assert run.history == ()
        assert run.brief(action="wait").validations == 0
    assert (snapshot.epoch, snapshot.step) == (None, 6)
    assert snapshot.train_loss == pytest.approx(math.fsum(losses) / 7, rel=1e-12)
    assert snapshot.loss_noise == pytest.approx(torch.tensor(losses, dtype=torch.float64).std(correction=0).item())
    assert snapshot.gradient_health is not None
    assert snapshot.gradient_health.global_norm == pytest.approx(math.hypot(*norms), rel=1e-6)
    assert (snapshot.red_flags, snapshot.findings) == ((), ())
    assert "Gradient health good" in snapshot.narrative
    (narrative,) = [each for each in records(Path(_folder())) if each["eventName"] == "nissa.narrative"]
    assert narrative["body"]["stringValue"] == snapshot.narrative
    assert attributes(narrative)["nissa.step"] == 6


def _folder() -> Path:
    (folder,) = Path("nissa-runs").iterdir()
    return folder


def test_a_diagnosis_names_what_is_found(toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        toy.step(run)
        run.log_loss(math.nan)
        toy.step()
        snapshot = run.diagnose()
        flags = {name: run.tracker.rules.flags[name] for name in snapshot.red_flags}
    assert flags == {"nonfinite_loss": True}
    (finding,) = snapshot.findings
    assert (finding.name, finding.step, finding.raised) == ("nonfinite_loss", 1, True)
    assert snapshot.narrative.startswith("Loss is not finite")
    assert nissa.EpochSnapshot.from_dict(snapshot.to_dict()).findings[0].advice == finding.advice
    raised = {point.attributes["nissa.red_flag.name"]: point.value for point in points(_folder(), "nissa.red_flag")}
    assert raised["nonfinite_loss"] == 1
    assert raised["loss_spike"] == 0


def test_before_the_first_step_nothing_is_called_normal(toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        assert run.diagnose().narrative == "No measurements yet"


def test_a_flag_of_a_validation_stays_in_the_narrative_of_a_diagnosis(toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        toy.step(run)
        for _ in range(4):
            run.validate(loss=1.0)
        snapshot = run.diagnose()
    assert snapshot.red_flags == ("sustained_plateau",)
    assert "Loss plateaued for 4 epochs" in snapshot.narrative
    assert (snapshot.plateau_length, snapshot.best_loss) == (4, 1.0)


@pytest.mark.parametrize("profile", ["minimal", "standard"])
def test_a_narrative_is_exported_after_every_nth_step(toy: Toy, profile: str) -> None:
    with nissa.start(profile, console__enabled=False, diagnosis__every_n_steps=3) as run:
        run.watch(toy.model, toy.optimizer)
        losses = [float(toy.step(run)) for _ in range(8)]
        assert run.flush(30)
    found = [each for each in records(_folder()) if each["eventName"] == "nissa.narrative"]
    assert [attributes(each)["nissa.step"] for each in found] == [2, 5]
    before, after = (math.fsum(losses[first : first + 3]) / 3 for first in (0, 3))
    if abs(after - before) > 0.01:
        word = "improving" if after < before else "degrading"
        assert f"Training loss {word} ({before:.3f} -> {after:.3f})" in found[1]["body"]["stringValue"]


def test_within_epochs_and_with_null_only_calls_make_a_narrative(toy: Toy) -> None:
    for name, every in (("epochs", 1), ("never", None)):
        with nissa.start(run_id=name, console__enabled=False, diagnosis__every_n_steps=every) as run:
            run.watch(toy.model, toy.optimizer)
            if every:
                with run.epoch(0):
                    toy.step(run)
            else:
                toy.step(run)
            assert run.flush(30)
        assert not [each for each in records(Path("nissa-runs") / name) if each["eventName"] == "nissa.narrative"]
        for handle in list(run._runtime.watches._watches.values()):
            handle[1].close()


def test_durations_do_not_need_epochs_and_leave_validations_out(
    toy: Toy, nissa_clock: FakeClock, nissa_telemetry: Telemetry
) -> None:
    with nissa.start("standard", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        for seconds in (0, 2, 3):
            nissa_clock.advance(seconds)
            toy.step(run)
        nissa_clock.advance(100)
        run.validate(loss=1.0)
        for seconds in (5, 4):
            nissa_clock.advance(seconds)
            toy.step(run)
    steps = [each for each in nissa_telemetry.measurements if isinstance(each, StepMeasured)]
    assert [each.duration for each in steps] == [None, 2.0, 3.0, None, 4.0]
    point = nissa_telemetry.metrics.stream("nissa.step.duration")[-1]
    assert (point.count, point.sum) == (3, 9.0)


def test_the_mean_loss_without_epochs_covers_the_newest_steps(toy: Toy) -> None:
    with nissa.start("standard", console__enabled=False, diagnosis__every_n_steps=4) as run:
        run.watch(toy.model, toy.optimizer)
        losses = [float(toy.step(run)) for _ in range(10)]
        assert run.validate(loss=1.0).train_loss == pytest.approx(math.fsum(losses[-4:]) / 4, rel=1e-12)


def test_a_run_without_epochs_prints_a_line_at_its_first_step_and_then_rarely(
    toy: Toy, nissa_clock: FakeClock, nissa_telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    with nissa.start("standard") as run:
        run.watch(toy.model, toy.optimizer)
        for _ in range(16):
            losses.append(float(toy.step(run)))
            nissa_clock.advance(10)
        run.log_loss(math.inf)
        toy.step()
        for _ in range(8):
            nissa_clock.advance(10)
            toy.step()
        nissa_telemetry.flush()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert lines == [
        f"step 0 · loss {losses[0]:.3f} · — steps/s · no findings",
        f"step 6 · loss {losses[6]:.3f} · 0.1 steps/s · no findings",
        f"step 12 · loss {losses[12]:.3f} · 0.1 steps/s · no findings",
        "step 18 · loss inf · 0.1 steps/s · nonfinite_loss",
        "step 24 · loss inf · 0.1 steps/s · nonfinite_loss",
    ]


def test_a_run_with_epochs_prints_no_lines_of_progress(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    with nissa.start("standard", console__every_seconds=0) as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            toy.step(run)
    assert not [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]


def _fail(run: nissa.Run, toy: Toy, losses: list[float]) -> None:
    with run.epoch(3):
        losses += [float(toy.step(run)) for _ in range(3)]
        raise KeyError


def test_an_epoch_that_fails_keeps_the_losses_it_had(
    toy: Toy, nissa_telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    with nissa.start("standard") as run:
        run.watch(toy.model, toy.optimizer)
        losses: list[float] = []
        with pytest.raises(KeyError):
            _fail(run, toy, losses)
    event = nissa_telemetry.events.of(EventType.EPOCH_COMPLETED).one()
    assert event.data["train_loss"] == pytest.approx(math.fsum(losses) / 3, rel=1e-12)
    assert event.data["error"] == "KeyError"
    assert f"epoch 3 · loss {math.fsum(losses) / 3:.3f} -> —" in capsys.readouterr().err
    assert nissa_telemetry.spans.named("epoch").one().error
