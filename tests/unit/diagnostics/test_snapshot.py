import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import EpochSnapshot
from nissa.hub.measurements import GradientHealth

INF, NAN = float("inf"), float("nan")
numbers = st.none() | st.floats()


def strict(snapshot: EpochSnapshot) -> Any:
    return json.loads(json.dumps(snapshot.to_dict(), allow_nan=False))


def test_what_was_not_measured_is_left_out() -> None:
    assert EpochSnapshot(epoch=None).to_dict() == {"plateau_length": 0, "narrative": "Training normally"}


def test_zero_was_measured() -> None:
    snapshot = EpochSnapshot(epoch=0, train_loss=0.0, validation_loss=0.0, validation_accuracy=0.0, class_variance=0.0)
    found = strict(snapshot)
    names = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "class_variance")
    assert {name: found[name] for name in names} == dict.fromkeys(names, 0)


def test_all_of_it_is_plain_data() -> None:
    health = GradientHealth(score=0.5, global_norm=2.0, layers=2, vanishing=("a",))
    snapshot = EpochSnapshot(
        epoch=3,
        env_id="0",
        gradient_health=health,
        gradient_percentiles={50.0: 0.1, 99.5: 0.2},
        per_class_accuracy={"cat": 0.0, "dog": 1.0},
        red_flags=("overfitting",),
    )
    assert strict(snapshot) == {
        "epoch": 3,
        "env_id": "0",
        "gradient_health": {"score": 0.5, "global_norm": 2.0, "layers": 2, "vanishing": ["a"]},
        "gradient_percentiles": {"50.0": 0.1, "99.5": 0.2},
        "per_class_accuracy": {"cat": 0.0, "dog": 1.0},
        "plateau_length": 0,
        "narrative": "Training normally",
        "red_flags": ["overfitting"],
    }


@pytest.mark.parametrize(("value", "text"), [(NAN, "NaN"), (INF, "Infinity"), (-INF, "-Infinity")])
def test_what_is_not_finite_is_told_as_text(value: float, text: str) -> None:
    health = GradientHealth(score=0.0, global_norm=value, layers=1)
    snapshot = EpochSnapshot(
        epoch=0,
        train_loss=value,
        gradient_health=health,
        per_class_accuracy={"a": value},
        gradient_percentiles={1.0: value},
    )
    found = strict(snapshot)
    assert found["train_loss"] == found["gradient_health"]["global_norm"] == text
    assert found["per_class_accuracy"] == {"a": text}
    assert found["gradient_percentiles"] == {"1.0": text}


@given(loss=numbers, accuracy=numbers, norm=numbers, classes=st.dictionaries(st.text(), st.floats()))
def test_every_snapshot_is_strict_json(
    loss: float | None, accuracy: float | None, norm: float | None, classes: dict[str, float]
) -> None:
    health = GradientHealth(score=accuracy, global_norm=norm, layers=1)
    snapshot = EpochSnapshot(
        epoch=1,
        train_loss=loss,
        validation_loss=norm,
        validation_accuracy=accuracy,
        gradient_health=health,
        per_class_accuracy=classes,
    )
    found = strict(snapshot)
    assert ("train_loss" in found) is (loss is not None)
    assert set(found.get("per_class_accuracy", {})) == set(classes)


def test_numbers_of_numpy_are_numbers() -> None:
    epoch: Any = np.int64(3)
    snapshot = EpochSnapshot(epoch=epoch, train_loss=np.float64(0.5), validation_loss=float(np.float32(0.25)))
    assert strict(snapshot)["epoch"] == 3
    half: Any = np.float32(0.5)
    assert strict(dataclasses.replace(snapshot, train_loss=half))["train_loss"] == 0.5


def test_a_snapshot_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EpochSnapshot(epoch=0).epoch = 1  # type: ignore[misc]


def test_classes_without_a_number_are_kept_apart_from_the_rest() -> None:
    snapshot = EpochSnapshot(epoch=0, per_class_accuracy={"a": 0.0, "b": NAN, "c": INF})
    assert snapshot.known_class_accuracies == {"a": 0.0}
