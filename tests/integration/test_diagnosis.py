"""What a run says of a training, from the loop to the files."""

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nissa
from nissa import DecisionBrief, EpochSnapshot, Run, Stage, ValidationMeter
from nissa.config import SEED_FEATURES, TelemetryConfig
from nissa.recordings.values import attributes
from tests.support import points, records, spans
from tests.toys import Toy

pytestmark = pytest.mark.usefixtures("patient")

FOLDER = Path("nissa-runs/r")
LOGITS = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
TARGETS = torch.tensor([0, 0, 1, 1])


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def run(toy: Toy) -> Iterator[Run]:
    with nissa.start("research", run_id="r", sharpness__every_n_epochs=1, console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        yield run


def metered() -> ValidationMeter:
    meter = ValidationMeter(["cat", "dog"])
    meter.update(LOGITS, TARGETS, torch.nn.functional.cross_entropy(LOGITS, TARGETS, reduction="none"))
    return meter


def closure(toy: Toy) -> Any:
    return lambda: toy.model(torch.ones(4, 8)).square().mean()


def test_a_snapshot_holds_all_that_a_loop_gives(run: Run, toy: Toy) -> None:
    with run.epoch(3):
        losses = [float(toy.step(run)) for _ in range(4)]
        found = run.validate(meter=metered(), closure=closure(toy), train_accuracy=0.5)
    assert (found.epoch, found.step, found.learning_rate) == (3, 3, 0.01)
    assert found.train_loss == pytest.approx(sum(losses) / 4)
    assert found.loss_noise == pytest.approx(float(torch.tensor(losses).std(correction=0)), rel=1e-4)
    assert (found.validation_accuracy, found.train_accuracy) == (0.75, 0.5)
    assert found.per_class_accuracy == {"cat": 1.0, "dog": 0.5}
    assert found.per_class_support == {"cat": 2, "dog": 2}
    assert found.per_class_loss["dog"] > found.per_class_loss["cat"]
    assert (found.confusion, found.class_names) == (((2, 0), (1, 1)), ("cat", "dog"))
    assert found.class_variance == 0.0625
    assert set(found.sharpness) == {"critical", "average_case"}
    assert set(found.sharpness_error) == {"average_case"}
    assert found.stability_margin is not None
    names = [name for name, _ in toy.model.named_parameters()]
    assert [layer.name for layer in found.gradient_stats] == list(found.weight_norms) == names
    for name, parameter in toy.model.named_parameters():
        assert found.weight_norms[name] == pytest.approx(float(parameter.detach().norm()), rel=0.2)
    layer = found.gradient_stats[0]
    assert set(layer.percentiles) == set(run.config.gradients.percentiles)
    assert layer.update_ratio is not None
    read = EpochSnapshot.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert read == found == run.history[-1]


def test_what_is_given_beside_a_meter_wins_zeros_included(run: Run) -> None:
    found = run.validate(meter=metered(), loss=0.0, accuracy=0.0, per_class_loss={"a": 0.0})
    assert (found.validation_loss, found.validation_accuracy, found.per_class_loss) == (0.0, 0.0, {"a": 0.0})
    assert found.per_class_accuracy == {"cat": 1.0, "dog": 0.5}


def test_what_a_meter_returned_is_as_good_as_the_meter(run: Run) -> None:
    found = run.validate(meter=metered().result())
    assert (found.validation_accuracy, found.confusion) == (0.75, ((2, 0), (1, 1)))


def test_a_meter_that_saw_nothing_measured_nothing(run: Run) -> None:
    found = run.validate(meter=ValidationMeter(2))
    assert (found.validation_loss, found.validation_accuracy, found.per_class_accuracy) == (None, None, {})


def test_without_meter_and_closure_all_is_as_before(toy: Toy) -> None:
    with nissa.start("standard", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        found = run.validate(loss=0.5, closure=closure(toy))
    assert (found.sharpness, found.stability_margin, found.confusion) == ({}, None, None)


def test_sharpness_is_measured_in_the_epochs_that_are_named(toy: Toy) -> None:
    with nissa.start("minimal", sharpness={"enabled": True, "every_n_epochs": 2}, console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        for number in range(3):
            with run.epoch(number):
                run.validate(closure=closure(toy))
    assert [bool(each.sharpness) for each in run.history] == [True, False, True]


def test_sharpness_and_its_margin_are_exported(run: Run, toy: Toy) -> None:
    with run.epoch(0):
        toy.step(run)
        found = run.validate(closure=closure(toy))
    run.close()
    told = {point.attributes["nissa.sharpness.method"]: point.value for point in points(FOLDER, "nissa.sharpness")}
    assert told == pytest.approx(found.sharpness)
    assert [point.value for point in points(FOLDER, "nissa.stability_margin")] == [found.stability_margin]


class Broken(ValidationMeter):
    def result(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no device")


@pytest.mark.faults
def test_a_meter_that_fails_costs_its_part_and_is_told_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        found = run.validate(meter=Broken(2), accuracy=0.5)
        assert (found.validation_loss, found.validation_accuracy) == (None, 0.5)
    assert run.hub.error_boundary.faults == {"validation meter": 2}
    assert len([each for each in caplog.records if "validation meter" in each.getMessage()]) == 1


@pytest.mark.faults
@pytest.mark.parametrize("kind", [RuntimeError, nissa.ConfigurationError])
def test_a_closure_that_fails_costs_its_part_and_is_told_once(
    kind: type[Exception], run: Run, toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> torch.Tensor:
        raise kind("no batch")

    before = {name: each.clone() for name, each in toy.model.state_dict().items()}
    for _ in range(2):
        found = run.validate(loss=0.5, closure=fails)
        assert (found.validation_loss, found.sharpness) == (0.5, {})
    assert run.hub.error_boundary.faults == {"sharpness": 2}
    assert len([each for each in caplog.records if "failed in sharpness" in each.getMessage()]) == 1
    assert all(torch.equal(each, before[name]) for name, each in toy.model.state_dict().items())


def test_a_closure_without_a_watched_model_is_told_once(caplog: pytest.LogCaptureFixture, toy: Toy) -> None:
    with nissa.start("research", console__enabled=False) as run, caplog.at_level(logging.WARNING, "nissa"):
        for _ in range(2):
            assert run.validate(closure=closure(toy)).sharpness == {}
    assert len([each for each in caplog.records if "call watch(model, optimizer)" in each.getMessage()]) == 1


def test_a_brief_and_features_are_those_of_the_environment(run: Run) -> None:
    env = run.environment(7)
    before = env.brief(action="wait")
    assert (before.validations, before.env_id) == (0, None)
    assert set(env.features()) == {0.0}
    env.validate(loss=1.0, accuracy=0.25)
    brief = env.brief(action=Stage.TRAINING, reason="it stalls")
    assert isinstance(brief, DecisionBrief)
    assert (brief.action, brief.reason, brief.env_id, brief.validations) == ("TRAINING", "it stalls", "7", 1)
    assert brief.key_metrics.validation_loss == 1.0
    named = dict(zip(run.config.feature_names, env.features(), strict=True))
    assert (named["validation_loss"], named["validation_accuracy"]) == (0.5, 0.25)
    assert env.features() == nissa.signals_to_features(env.tracker)
    assert run.brief(action="wait").validations == 0


@pytest.mark.faults
def test_a_policy_gets_a_brief_and_features_even_where_diagnosis_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = run.germinate("s", slot="a")
    run.validate(loss=1.0)
    monkeypatch.setattr("nissa.diagnostics.tracker.decision_brief", None)
    monkeypatch.setattr("nissa.diagnostics.tracker.signals_to_features", None)
    monkeypatch.setattr("nissa.diagnostics.tracker.seed_features", None)
    assert run.brief(action="wait").narrative == "No validation yet"
    assert run.features() == tuple(spec.missing for spec in run.config.feature_specs)
    assert len(seed.features()) == len(SEED_FEATURES)
    assert run.hub.error_boundary.faults == {"brief": 1, "features": 1, "seed features": 1}


def of(seed: nissa.Seed) -> dict[str, float]:
    return dict(zip([spec.name for spec in SEED_FEATURES], seed.features(), strict=True))


def test_a_seed_s_features_follow_its_gradients_and_its_stage(run: Run, toy: Toy) -> None:
    seed = run.germinate("s", blueprint="conv", slot="r0c0", module=toy.model[2])
    assert (of(seed)["seed_stage"], of(seed)["seed_gradient_health_known"]) == (0.2, 0.0)
    seed.advance(Stage.TRAINING)
    with run.epoch(0):
        toy.step(run)
        run.validate(loss=1.0, accuracy=0.5)
    found = of(seed)
    norm = torch.cat([each.grad.flatten() for each in toy.model[2].parameters() if each.grad is not None]).norm()
    assert found["seed_gradient_norm"] == pytest.approx((math.log10(float(norm)) + 8) / 16, rel=1e-3)
    assert (found["seed_gradient_health"], found["seed_gradient_ratio_known"]) == (1.0, 1.0)
    assert (found["seed_accuracy"], found["seed_accuracy_delta_known"]) == (0.5, 0.0)
    seed.advance(Stage.BLENDING, alpha=0.5)
    run.validate(accuracy=0.55)
    found = of(seed)
    assert [found["seed_alpha"], found["seed_accuracy_delta"]] == pytest.approx([0.5, 0.5])


def test_a_narrative_is_on_the_console_on_the_span_and_an_event(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    with nissa.start("diagnostic", run_id="r") as run:
        run.watch(toy.model, toy.optimizer)
        seed = run.germinate("seed-3", blueprint="attention", slot="r0c0", module=toy.model[2])
        seed.advance(Stage.TRAINING)
        for number, (loss, accuracy) in enumerate([(0.542, 0.5), (0.398, 0.512)]):
            with run.epoch(number):
                toy.step(run)
                found = run.validate(loss=loss, accuracy=accuracy, per_class_accuracy={"3": 0.42, "7": 0.91})
                if number == 0:
                    seed.advance(Stage.BLENDING, alpha=0.6)
    improving, health, imbalance, of_seed = found.narrative.split(" | ")
    assert (improving, health) == ("Loss improving (0.542 -> 0.398)", "Gradient health good")
    assert imbalance == "Class imbalance: 3=42% vs 7=91%"
    assert of_seed.startswith("seed-3 (attention) blended to 0.6, +1.2 points, gradient ratio ")
    assert found.narrative in capsys.readouterr().err
    validation = [span for span in spans(FOLDER) if span.name == "validation"][-1]
    assert validation.attributes["nissa.narrative"] == found.narrative
    told = [record for record in records(FOLDER) if record.get("eventName") == "nissa.narrative"][-1]
    assert (told["body"]["stringValue"], told["spanId"]) == (found.narrative, validation.span_id)
    assert attributes(told)["nissa.narrative"] == found.narrative


def test_red_flags_of_a_validation_are_events(run: Run) -> None:
    run.validate(loss=float("nan"))
    run.close()
    names = [record.get("eventName") for record in records(FOLDER)]
    assert "nissa.event.red_flag_raised" in names


def test_a_configuration_counts_its_features_before_a_run() -> None:
    config = TelemetryConfig.research()
    with nissa.start(config=config) as run:
        assert len(run.features()) == config.feature_count


@pytest.mark.parametrize("rate", [5.0, 20.0])
def test_a_diverged_training_with_closures_is_not_called_healthy(rate: float) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=rate, max_iter=5)
    x, y = torch.randn(64, 8), torch.randint(4, (64,))

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        torch.autograd.backward(loss)
        losses.append(loss.item())
        return losses[-1]

    losses: list[float] = []
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(model, optimizer)
        for epoch in range(4):
            with run.epoch(epoch):
                for _ in range(4):
                    run.log_loss(optimizer.step(closure))  # type: ignore[no-untyped-call]  # torch leaves it unannotated
                snapshot = run.validate()
                assert "health good" not in snapshot.narrative
                assert snapshot.narrative != "Training normally"
                assert "healthy_gradients" not in snapshot.opportunities
    assert not losses[-1] < 4 * losses[0]
