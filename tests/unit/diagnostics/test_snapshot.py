import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import ConfigurationError, EpochSnapshot
from nissa.diagnostics.layers import LayerGradients
from nissa.diagnostics.seed_findings import SeedFinding
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


counts = st.integers(0, 2**53)
labels = st.text(max_size=5)
layers = st.builds(
    LayerGradients,
    name=labels,
    model_name=st.none() | labels,
    norm=numbers,
    std=numbers,
    nonfinite=counts,
    percentiles=st.dictionaries(st.floats(0, 100), st.floats(), max_size=3),
    weight_norm=numbers,
)
seeds = st.builds(SeedFinding, seed_id=labels, stage=labels, alpha=numbers, gradient_ratio=numbers, sentence=labels)
everything = st.builds(
    EpochSnapshot,
    epoch=st.none() | counts,
    train_loss=numbers,
    loss_noise=numbers,
    gradient_health=st.none()
    | st.builds(GradientHealth, score=numbers, global_norm=numbers, layers=counts, vanishing=st.tuples(labels)),
    gradient_stats=st.lists(layers, max_size=2).map(tuple),
    gradient_percentiles=st.dictionaries(st.floats(0, 100), st.floats(), max_size=3),
    per_class_accuracy=st.dictionaries(labels, st.floats(), max_size=3),
    per_class_support=st.dictionaries(labels, counts, max_size=3),
    confusion=st.none() | st.tuples(st.tuples(counts, counts), st.tuples(counts, counts)),
    class_names=st.lists(labels, max_size=2).map(tuple),
    sharpness=st.dictionaries(labels, st.floats(), max_size=2),
    seeds=st.lists(seeds, max_size=2).map(tuple),
    narrative=labels,
    red_flags=st.lists(labels, max_size=2).map(tuple),
)


@given(snapshot=everything)
def test_every_snapshot_survives_json(snapshot: EpochSnapshot) -> None:
    read = EpochSnapshot.from_dict(strict(snapshot))
    assert repr(read) == repr(snapshot)  # which calls NaN the same as NaN


def test_what_a_later_version_adds_is_ignored() -> None:
    assert EpochSnapshot.from_dict({"epoch": 1, "mood": "good"}) == EpochSnapshot(epoch=1)


@pytest.mark.parametrize(
    "data", [{"epoch": "soon"}, {"confusion": 1}, {"gradient_health": 1}, {"train_loss": "much"}], ids=str
)
def test_what_is_no_snapshot_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not data of EpochSnapshot"):
        EpochSnapshot.from_dict(data)


def test_what_is_no_mapping_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(ConfigurationError, match="not data of EpochSnapshot"):
        EpochSnapshot.from_dict(nothing)
