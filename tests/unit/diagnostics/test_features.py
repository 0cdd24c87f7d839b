"""A snapshot as a vector of fixed length."""

import math
from typing import Any

import pytest

from nissa.diagnostics.tracker import DiagnosticTracker, Observations, features
from nissa.hub.measurements import GradientHealth
from nissa.profiles import TelemetryConfig
from nissa.profiles.files import PROFILES

HEALTH = GradientHealth(score=0.5, global_norm=2.0, layers=4, vanishing=("a", "b"), exploding=("c",))


def vector(config: TelemetryConfig, **fields: Any) -> dict[str, float]:
    """The features by name, of the second epoch."""
    tracker = DiagnosticTracker(config)
    tracker.diagnose(Observations(epoch=0, validation_loss=fields.get("validation_loss")))
    snapshot = tracker.diagnose(Observations(epoch=1, **fields)).snapshot
    return dict(zip(config.feature_names, features(snapshot, config), strict=True))


@pytest.mark.parametrize("profile", [*PROFILES, "custom"])
@pytest.mark.parametrize("measured", [False, True])
def test_the_length_is_known_before_training_starts(profile: str, *, measured: bool) -> None:
    config = TelemetryConfig.from_profile(profile)
    tracker = DiagnosticTracker(config)
    fields: dict[str, Any] = {
        "validation_loss": 1.0,
        "gradient_health": HEALTH,
        "gradient_percentiles": {50.0: 0.5},
        "per_class_accuracy": {"a": 0.5},
    }
    snapshot = tracker.diagnose(Observations(epoch=0, **(fields if measured else {}))).snapshot
    found = features(snapshot, config)
    assert len(found) == config.feature_count
    assert all(type(value) is float for value in found)


def test_what_was_not_measured_is_nan() -> None:
    config = TelemetryConfig.research()
    tracker = DiagnosticTracker(config)
    found = dict(
        zip(config.feature_names, features(tracker.diagnose(Observations(epoch=None)).snapshot, config), strict=True)
    )
    assert found.pop("plateau_length") == 0.0
    assert [name for name, value in found.items() if not math.isnan(value)] == []


def test_what_was_measured_is_there_zeros_included() -> None:
    found = vector(
        TelemetryConfig.research(),
        train_loss=0.0,
        train_accuracy=0.0,
        validation_loss=0.0,
        validation_accuracy=0.0,
        gradient_health=GradientHealth(score=0.0, global_norm=0.0, layers=2, nonfinite=("a",)),
        gradient_percentiles=dict.fromkeys((1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0), 0.0),
        per_class_accuracy={"a": 0.0},
    )
    expected = {"epoch": 1.0, "plateau_length": 2.0, "nonfinite_layers": 1.0}
    assert {name: value for name, value in found.items() if value} == expected | {
        "accuracy_delta": pytest.approx(math.nan, nan_ok=True)
    }
    assert len(found) == TelemetryConfig.research().feature_count


def test_gradients_are_told_in_layers_and_percentiles() -> None:
    found = vector(
        TelemetryConfig.diagnostic(), gradient_health=HEALTH, gradient_percentiles={1.0: 0.1, 50.0: 0.5, 99.0: 0.9}
    )
    assert found["gradient_global_norm"] == 2.0
    assert found["gradient_health"] == 0.5
    assert [found[f"{kind}_layers"] for kind in ("vanishing", "exploding", "nonfinite")] == [2.0, 1.0, 0.0]
    assert [found[f"gradient_p{each}"] for each in (1, 50, 99)] == [0.1, 0.5, 0.9]
    assert math.isnan(found["gradient_p25"])


def test_gradients_of_no_layer_are_not_zero_layers_in_trouble() -> None:
    found = vector(TelemetryConfig.diagnostic(), gradient_health=GradientHealth(score=None, global_norm=None, layers=0))
    assert math.isnan(found["vanishing_layers"])
    assert math.isnan(found["gradient_health"])


def test_a_gradient_percentile_has_the_name_of_its_number() -> None:
    config = TelemetryConfig.from_profile("standard", {"gradients": {"percentiles": [0.5, 99.9]}})
    found = vector(config, gradient_health=HEALTH, gradient_percentiles={0.5: 1.0, 99.9: 2.0})
    assert (found["gradient_p0.5"], found["gradient_p99.9"]) == (1.0, 2.0)


def test_classes_are_told_as_mean_worst_best_and_variance() -> None:
    found = vector(TelemetryConfig.diagnostic(), per_class_accuracy={"a": 0.25, "b": 0.75, "c": math.nan})
    names = ("class_accuracy_mean", "class_accuracy_worst", "class_accuracy_best", "class_variance")
    assert [found[name] for name in names] == [0.5, 0.25, 0.75, 0.0625]


def test_what_is_not_finite_stays_so() -> None:
    found = vector(TelemetryConfig.minimal(), train_loss=math.inf, validation_loss=-math.inf)
    assert (found["train_loss"], found["validation_loss"]) == (math.inf, -math.inf)
