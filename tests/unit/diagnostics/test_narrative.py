from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import EpochSnapshot
from nissa.diagnostics.narrative import narrate
from nissa.hub.measurements import GradientHealth
from nissa.profiles.sections import DiagnosticsConfig

INF, NAN = float("inf"), float("nan")
CONFIG = DiagnosticsConfig()
numbers = st.none() | st.floats()
layers = st.lists(st.text(), max_size=5).map(tuple)


def health(score: float | None = 0.6, **layers: Any) -> GradientHealth:
    return GradientHealth(score=score, global_norm=1.0, layers=4, **layers)


def told(config: DiagnosticsConfig = CONFIG, **fields: Any) -> str:
    return narrate(EpochSnapshot(epoch=4, **fields), config)


def test_it_has_the_form_of_the_seed_document() -> None:
    line = told(
        validation_loss=0.398,
        loss_delta=0.398 - 0.542,
        gradient_health=health(1.0),
        per_class_accuracy={"3": 0.42, "7": 0.91, "5": 0.6},
    )
    assert line == "Loss improving (0.542 -> 0.398) | Gradient health good | Class imbalance: 3=42% vs 7=91%"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "Training normally"),
        ({"validation_loss": 0.5}, "Training normally"),
        ({"validation_loss": 0.5, "loss_delta": -0.2}, "Loss improving (0.700 -> 0.500)"),
        ({"validation_loss": 0.0, "loss_delta": -0.2}, "Loss improving (0.200 -> 0.000)"),
        ({"validation_loss": 0.7, "loss_delta": 0.2}, "Loss degrading (0.500 -> 0.700)"),
        ({"validation_loss": 0.5, "loss_delta": 0.01}, "Training normally"),
        ({"validation_loss": 0.5, "loss_delta": -0.011}, "Loss improving (0.511 -> 0.500)"),
        ({"validation_loss": 0.5, "loss_delta": 0.0, "plateau_length": 2}, "Training normally"),
        ({"validation_loss": 0.5, "loss_delta": 0.0, "plateau_length": 3}, "Loss plateaued for 3 epochs at ~0.500"),
        ({"train_loss": NAN}, "Loss is not finite"),
        ({"validation_loss": INF, "loss_delta": INF}, "Loss is not finite"),
        ({"validation_loss": 0.5, "loss_delta": -INF}, "Training normally"),
        ({"gradient_health": health(vanishing=("a",))}, "Vanishing gradients in 1 layer"),
        ({"gradient_health": health(vanishing=("a", "b"))}, "Vanishing gradients in 2 layers"),
        ({"gradient_health": health(exploding=("a", "b", "c"))}, "Exploding gradients in 3 layers"),
        ({"gradient_health": health(0.0, nonfinite=("a",))}, "Non-finite gradients in 1 layer"),
        ({"gradient_health": health(0.8)}, "Gradient health good"),
        ({"gradient_health": health(0.79)}, "Training normally"),
        ({"gradient_health": health(None)}, "Training normally"),
        ({"per_class_accuracy": {"a": 0.0, "b": 1.0}}, "Class imbalance: a=0% vs b=100%"),
        ({"per_class_accuracy": {"a": 0.5, "b": 0.7}}, "Training normally"),
        ({"per_class_accuracy": {"x": NAN, "a": 0.1, "b": 0.9}}, "Class imbalance: a=10% vs b=90%"),
        ({"train_validation_gap": 0.75}, "Possible overfitting (train-val gap: 0.75)"),
        ({"train_validation_gap": 0.5}, "Training normally"),
        ({"train_validation_gap": NAN}, "Training normally"),
    ],
)
def test_each_finding_has_its_sentence(fields: dict[str, Any], line: str) -> None:
    assert told(**fields) == line


def test_what_is_broken_comes_before_what_is_not() -> None:
    line = told(
        train_loss=NAN,
        validation_loss=0.5,
        loss_delta=-0.1,
        gradient_health=health(0.0, nonfinite=("a",), exploding=("b",), vanishing=("c", "d")),
        train_validation_gap=0.9,
    )
    assert line.split(" | ") == [
        "Loss is not finite",
        "Non-finite gradients in 1 layer",
        "Exploding gradients in 1 layer",
        "Vanishing gradients in 2 layers",
        "Loss improving (0.600 -> 0.500)",
        "Possible overfitting (train-val gap: 0.90)",
    ]


def test_a_plateau_is_as_long_as_the_configuration_says() -> None:
    config = DiagnosticsConfig(plateau_epochs=5)
    fields = {"validation_loss": 0.5, "loss_delta": 0.0}
    assert told(config, **fields, plateau_length=4) == "Training normally"
    assert told(config, **fields, plateau_length=5) == "Loss plateaued for 5 epochs at ~0.500"


def test_a_sentence_that_does_not_fit_is_left_out_whole() -> None:
    classes = {"n" * 200: 0.1, "m" * 200: 0.9}
    assert told(validation_loss=0.5, loss_delta=-0.2, per_class_accuracy=classes) == "Loss improving (0.700 -> 0.500)"


def test_a_first_sentence_that_does_not_fit_is_cut() -> None:
    line = told(per_class_accuracy={"n" * 300: 0.1, "m" * 300: 0.9})
    assert line.startswith("Class imbalance: nnn")
    assert line.endswith("...")
    assert len(line) == 280


@given(
    loss=numbers,
    delta=numbers,
    score=st.none() | st.floats(0, 1),
    found=st.tuples(layers, layers, layers),
    classes=st.dictionaries(st.text(max_size=300), st.floats(0, 1), max_size=4),
    gap=numbers,
    plateau=st.integers(0, 10**6),
)
def test_there_is_always_one_line_of_at_most_280_characters(
    *,
    loss: float | None,
    delta: float | None,
    score: float | None,
    found: tuple[tuple[str, ...], ...],
    classes: dict[str, float],
    gap: float | None,
    plateau: int,
) -> None:
    vanishing, exploding, nonfinite = found
    line = told(
        validation_loss=loss,
        loss_delta=delta,
        gradient_health=health(score, vanishing=vanishing, exploding=exploding, nonfinite=nonfinite),
        per_class_accuracy=classes,
        train_validation_gap=gap,
        plateau_length=plateau,
    )
    assert 0 < len(line) <= 280
