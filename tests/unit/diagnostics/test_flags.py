from typing import Any

import pytest

from nissa import EpochSnapshot
from nissa.diagnostics.flags import RED_FLAGS, opportunities, red_flags
from nissa.hub.measurements import GradientHealth
from nissa.profiles.sections import DiagnosticsConfig

INF, NAN = float("inf"), float("nan")
CONFIG = DiagnosticsConfig()


def snapshot(**fields: Any) -> EpochSnapshot:
    return EpochSnapshot(epoch=0, **fields)


def health(score: float | None = 1.0, **layers: Any) -> GradientHealth:
    return GradientHealth(score=score, global_norm=1.0, layers=4, **layers)


def raised(snapshot: EpochSnapshot, config: DiagnosticsConfig = CONFIG) -> list[str]:
    return [name for name, state in red_flags(snapshot, config).items() if state]


ON: dict[str, list[dict[str, Any]]] = {
    "nonfinite_loss": [{"train_loss": NAN}, {"validation_loss": INF}, {"train_loss": 1.0, "validation_loss": -INF}],
    "nonfinite_gradients": [{"gradient_health": health(nonfinite=("a",))}],
    "exploding_gradients": [{"gradient_health": health(exploding=("a",))}],
    "vanishing_gradients": [{"gradient_health": health(vanishing=("a",))}],
    "poor_gradient_health": [{"gradient_health": health(0.49)}, {"gradient_health": health(0.0)}],
    "overfitting": [{"train_validation_gap": 0.51}],
    "severe_class_imbalance": [{"per_class_accuracy": {"a": 0.1, "b": 0.31}}, {"per_class_accuracy": {"a": 0, "b": 1}}],
    "sustained_plateau": [{"plateau_length": 3}, {"plateau_length": 4}],
}

OFF: dict[str, list[dict[str, Any]]] = {
    "nonfinite_loss": [{"train_loss": 0.0, "validation_loss": 1e300}],
    "nonfinite_gradients": [{"gradient_health": health()}],
    "exploding_gradients": [{"gradient_health": health(vanishing=("a",))}],
    "vanishing_gradients": [{"gradient_health": health(exploding=("a",))}],
    "poor_gradient_health": [{"gradient_health": health(0.5)}, {"gradient_health": health(None)}],
    "overfitting": [{"train_validation_gap": 0.5}, {"train_validation_gap": -3.0}, {"train_validation_gap": NAN}],
    "severe_class_imbalance": [{"per_class_accuracy": {"a": 0.0, "b": 0.2}}, {"per_class_accuracy": {"a": 0.0}}],
    "sustained_plateau": [{"plateau_length": 2}],
}


def cases(table: dict[str, list[dict[str, Any]]]) -> list[Any]:
    return [pytest.param(name, each, id=f"{name}-{i}") for name, all_ in table.items() for i, each in enumerate(all_)]


def test_every_flag_is_tested_on_and_off() -> None:
    assert list(ON) == list(OFF) == list(RED_FLAGS)


@pytest.mark.parametrize(("name", "fields"), cases(ON))
def test_a_flag_is_raised_and_no_other(name: str, fields: dict[str, Any]) -> None:
    assert raised(snapshot(**fields)) == [name]


@pytest.mark.parametrize(("name", "fields"), cases(OFF))
def test_a_flag_is_not_raised(name: str, fields: dict[str, Any]) -> None:
    assert name not in raised(snapshot(**fields))


def test_where_nothing_was_measured_no_flag_is_raised_and_all_are_known() -> None:
    assert red_flags(snapshot(), CONFIG) == dict.fromkeys(RED_FLAGS, False)
    assert opportunities(snapshot(), []) == ()


def test_the_worst_comes_first() -> None:
    broken = health(0.0, nonfinite=("a",), exploding=("b",), vanishing=("c",))
    found = raised(
        snapshot(
            plateau_length=9,
            train_validation_gap=9.0,
            per_class_accuracy={"a": 0, "b": 1},
            gradient_health=broken,
            train_loss=NAN,
        )
    )
    assert found == list(RED_FLAGS)
    assert found[0] == "nonfinite_loss"


def test_a_class_without_examples_hides_no_imbalance() -> None:
    for accuracies in ({"x": NAN, "a": 0.1, "b": 0.9}, {"a": 0.1, "x": NAN, "b": 0.9}, {"a": 0.1, "b": 0.9, "x": NAN}):
        assert raised(snapshot(per_class_accuracy=accuracies)) == ["severe_class_imbalance"]


def test_the_configuration_decides_where_a_finding_begins() -> None:
    config = DiagnosticsConfig(overfitting_gap=0.1, plateau_epochs=2, class_imbalance_spread=0.05)
    fields: dict[str, Any] = {
        "train_validation_gap": 0.2,
        "plateau_length": 2,
        "per_class_accuracy": {"a": 0.1, "b": 0.2},
    }
    assert raised(snapshot(**fields)) == []
    assert raised(snapshot(**fields), config) == ["overfitting", "severe_class_imbalance", "sustained_plateau"]


@pytest.mark.parametrize(("score", "expected"), [(0.81, True), (1.0, True), (0.8, False), (0.0, False), (None, False)])
def test_healthy_gradients_are_an_opportunity(score: float | None, *, expected: bool) -> None:
    found = opportunities(snapshot(gradient_health=health(score)), [])
    assert ("healthy_gradients" in found) is expected


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(0.0, True), (0.49, True), (0.5, False), (None, False), (NAN, False)]
)
def test_a_low_accuracy_is_an_early_stage(accuracy: float | None, *, expected: bool) -> None:
    found = opportunities(snapshot(validation_accuracy=accuracy), [])
    assert ("early_stage_flexibility" in found) is expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], True),
        ([0.0, 0.0, 0.0, 0.0, 0.0], True),
        ([1.0, 1.09, 1.0, 1.05, 1.0], True),
        ([9.0, 1.0, 1.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 1.0, 1.0], False),
        ([1.0, 1.0, 1.0, 1.0, 1.125], False),
        ([1.0, 1.0, None, 1.0, 1.0], False),
        ([1.0, 1.0, NAN, 1.0, 1.0], False),
    ],
    ids=["same", "zero", "within", "older is out", "too few", "too far", "absent", "nan"],
)
def test_training_is_stable_when_the_last_five_losses_are_close(losses: list[float | None], *, expected: bool) -> None:
    *history, newest = [snapshot(validation_loss=loss) for loss in losses]
    assert ("stable_training" in opportunities(newest, history)) is expected
