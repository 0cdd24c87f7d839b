from typing import Any

import pytest

from nissa.profiles import TelemetryConfig, feature_names

PROGRESS = (
    "epoch",
    "train_loss",
    "validation_loss",
    "loss_delta",
    "train_accuracy",
    "validation_accuracy",
    "accuracy_delta",
    "train_validation_gap",
    "plateau_length",
    "best_accuracy",
    "best_loss",
)
GRADIENTS = ("gradient_global_norm", "gradient_health", "vanishing_layers", "exploding_layers", "nonfinite_layers")
CLASSES = ("class_accuracy_mean", "class_accuracy_worst", "class_accuracy_best", "class_variance")


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("minimal", PROGRESS),
        ("standard", (*PROGRESS, *GRADIENTS, "gradient_p1", "gradient_p50", "gradient_p99")),
        (
            "diagnostic",
            (*PROGRESS, *GRADIENTS, *(f"gradient_p{rank}" for rank in (1, 25, 50, 75, 99)), *CLASSES),
        ),
        (
            "research",
            (*PROGRESS, *GRADIENTS, *(f"gradient_p{rank}" for rank in (1, 5, 10, 25, 50, 75, 90, 95, 99)), *CLASSES),
        ),
    ],
)
def test_the_names_follow_from_the_profile(profile: str, expected: tuple[str, ...]) -> None:
    config = TelemetryConfig.from_profile(profile)
    assert config.feature_names == feature_names(config) == expected
    assert config.feature_count == len(expected)


def test_percentiles_count_only_where_gradients_are_measured() -> None:
    assert TelemetryConfig.from_profile("minimal", {"gradients.percentiles": [1, 2, 3]}).feature_names == PROGRESS


def test_without_a_histogram_there_are_no_percentiles() -> None:
    config = TelemetryConfig.from_profile("standard", {"gradients.histogram": False})
    assert config.feature_names == (*PROGRESS, *GRADIENTS)


@pytest.mark.parametrize(
    ("percentiles", "expected"),
    [
        ([99.9, 0], ["gradient_p0", "gradient_p99.9"]),
        ([99.99999, 100], ["gradient_p99.99999", "gradient_p100"]),
    ],
)
def test_each_percentile_has_a_name_of_its_own(percentiles: Any, expected: list[str]) -> None:
    config = TelemetryConfig.from_profile("standard", {"gradients.percentiles": percentiles})
    assert list(config.feature_names[-2:]) == expected
