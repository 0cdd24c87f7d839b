"""Values of a running loop that cannot be used: each is absent, with the fix, and costs nothing else."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import nissa
from nissa import InvalidValueError
from tests.integration.conftest import Toy
from tests.support import points

pytestmark = pytest.mark.usefixtures("patient")

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "percent": ({"accuracy": 87.5}, r"validate\(accuracy=...\): Pass a fraction .* 87.5 % is 0.875"),
    "negative": ({"train_accuracy": -0.1}, r"validate\(train_accuracy=...\): Pass a fraction"),
    "text": ({"loss": "0.5"}, r"validate\(loss=...\): Pass a number, not str"),
    "several numbers": ({"loss": torch.ones(2)}, r"validate\(loss=...\): Expected one number"),
    "object": ({"loss": object()}, r"validate\(loss=...\): "),
    "one class": ({"per_class_accuracy": {"a": 0.5, "b": 50}}, r"validate\(per_class_accuracy=...\): Pass a fraction"),
    "no mapping": ({"per_class_accuracy": [0.5]}, r"validate\(per_class_accuracy=...\): Pass a mapping"),
}


@pytest.mark.parametrize(("passed", "fix"), REFUSED.values(), ids=REFUSED)
def test_a_strict_run_raises_with_the_fix(passed: dict[str, Any], fix: str) -> None:
    with (
        nissa.start("diagnostic", console__enabled=False) as run,
        pytest.raises(InvalidValueError, match=fix),
    ):
        run.validate(**passed)


@pytest.mark.parametrize(("passed", "fix"), REFUSED.values(), ids=REFUSED)
def test_otherwise_only_that_value_is_absent(
    toy: Toy, caplog: pytest.LogCaptureFixture, passed: dict[str, Any], fix: str
) -> None:
    good: dict[str, Any] = {
        "loss": 0.25,
        "accuracy": 0.75,
        "train_accuracy": 0.8,
        "per_class_accuracy": {"a": 0.5, "c": 0.25},
    }
    with nissa.start("diagnostic", run_id="run", strict=False, console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        with caplog.at_level(logging.WARNING, "nissa"), run.epoch(0):
            toy.step(run)
            for _ in range(2):
                snapshot = run.validate(**(good | passed))
        assert run.hub.rejections == {"invalid_value": 2}
    found = {
        "loss": snapshot.validation_loss,
        "accuracy": snapshot.validation_accuracy,
        "train_accuracy": snapshot.train_accuracy,
        "per_class_accuracy": dict(snapshot.per_class_accuracy),
    }
    absent: dict[str, Any] = {"per_class_accuracy": {"a": 0.5} if fix.endswith("fraction") else {}}
    assert found == good | {name: absent.get(name) for name in passed}
    (warning,) = [record.getMessage() for record in caplog.records if "validate(" in record.getMessage()]
    assert "The value is absent" in warning
    assert points(Path("nissa-runs") / "run", "nissa.step")


def test_an_epoch_without_a_number_is_no_epoch_and_costs_no_metric(toy: Toy) -> None:
    with (
        nissa.start("diagnostic", console__enabled=False) as run,
        pytest.raises(InvalidValueError, match="Pass a whole number, not str"),
        run.epoch("warmup"),  # type: ignore[arg-type]
    ):
        raise AssertionError
    with nissa.start("diagnostic", run_id="run", strict=False, console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        for number in ("warmup", 0, torch.tensor(1)):
            with run.epoch(number):  # type: ignore[arg-type]
                toy.step(run)
    steps = points(Path("nissa-runs") / "run", "nissa.step")
    assert [point.value for point in steps] == [0, 1, 2]
    assert [point.value for point in points(Path("nissa-runs") / "run", "nissa.epoch")][-1] == 1


@pytest.mark.faults
@pytest.mark.parametrize(
    "passed",
    [{"loss": "0.5"}, {"loss": 10**400}, {"accuracy": 87.5}, {"meter": 5}, {"per_class_accuracy": {"a": 7}}],
    ids=str,
)
def test_a_validation_whose_only_value_was_refused_is_not_normal(passed: dict[str, Any]) -> None:
    with nissa.start("diagnostic", strict=False, console__enabled=False) as run:
        assert run.validate(**passed).narrative.startswith("No diagnosis: ")
        assert run.validate(loss=1.0).narrative == "Training normally"


@pytest.mark.faults
def test_a_meter_that_fails_is_not_normal() -> None:
    class Broken:
        def result(self) -> None:
            raise OSError

    with nissa.start("diagnostic", console__enabled=False) as run:
        snapshot = run.validate(meter=Broken())  # type: ignore[arg-type]
    assert snapshot.narrative == "No diagnosis: missing validation loss, validation accuracy"


def test_a_closure_that_is_no_function_is_refused() -> None:
    with (
        nissa.start("research", console__enabled=False) as run,
        pytest.raises(InvalidValueError, match="Pass a function, not int"),
    ):
        run.validate(closure=5)  # type: ignore[arg-type]
