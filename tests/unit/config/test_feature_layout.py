from typing import Any

import pytest

from nissa.config import PROFILES, SEED_FEATURES, TelemetryConfig, feature_names
from nissa.config.feature_scaling import Clip, Decades, FeatureSpec, Saturate

INF = float("inf")


def names(profile: str, **overrides: Any) -> tuple[str, ...]:
    config = TelemetryConfig.from_profile(profile, overrides)
    assert config.feature_names == feature_names(config) == tuple(spec.name for spec in config.feature_specs)
    assert config.feature_count == len(config.feature_names) == len(set(config.feature_names))
    return config.feature_names


@pytest.mark.parametrize(
    ("profile", "count"), [("minimal", 52), ("standard", 67), ("diagnostic", 79), ("research", 94)]
)
def test_the_length_follows_from_the_profile(profile: str, count: int) -> None:
    assert len(names(profile)) == count


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ({"gradients.percentiles": [1, 2, 3]}, []),
        (
            {"gradients.enabled": True, "gradients.percentiles": []},
            [
                "gradient_health",
                "vanishing_layers",
                "exploding_layers",
                "nonfinite_layers",
                "gradient_health_known",
                "gradient_global_norm",
                "gradient_global_norm_known",
                "gradient_norm_spread",
                "gradient_norm_spread_known",
                "gradient_zero_fraction",
                "gradient_zero_fraction_known",
            ],
        ),
        (
            {"per_class.enabled": True},
            [
                "class_accuracy_mean",
                "class_accuracy_worst",
                "class_accuracy_best",
                "class_accuracy_known",
                "class_variance",
                "class_variance_known",
            ],
        ),
        ({"per_class.track_loss": True, "per_class.track_confusion": True}, []),
        (
            {"sharpness.enabled": True},
            [
                "sharpness_critical",
                "sharpness_critical_known",
                "sharpness_average_case",
                "sharpness_average_case_known",
                "stability_margin",
                "stability_margin_known",
            ],
        ),
        (
            {"sharpness.enabled": True, "sharpness.methods": ["average_case"]},
            ["sharpness_average_case", "sharpness_average_case_known"],
        ),
    ],
    ids=["percentiles", "gradients", "classes", "what classes lack", "sharpness", "one method"],
)
def test_what_is_measured_has_entries(settings: dict[str, Any], added: list[str]) -> None:
    before = names("minimal")
    assert names("minimal", **settings) == (*before, *added)


@pytest.mark.parametrize(
    ("setting", "added"),
    [
        ("per_class.track_loss", ["class_loss_worst", "class_loss_worst_known"]),
        ("per_class.track_confusion", ["class_confusion_worst", "class_confusion_worst_known"]),
    ],
)
def test_each_setting_of_classes_has_entries(setting: str, added: list[str]) -> None:
    before = names("minimal", **{"per_class.enabled": True})
    assert names("minimal", **{"per_class.enabled": True, setting: True}) == (*before, *added)


def test_weights_have_entries_where_they_are_measured() -> None:
    before = set(names("standard"))
    after = set(names("standard", **{"gradients.weight_norms": True, "gradients.update_ratios": True}))
    assert after - before == {
        "weight_norm",
        "weight_norm_known",
        "update_ratio",
        "update_ratio_largest",
        "update_ratio_known",
    }


@pytest.mark.parametrize(
    ("percentiles", "expected"),
    [
        ([99.9, 0], ["gradient_p0", "gradient_p99.9"]),
        ([99.99999, 100], ["gradient_p99.99999", "gradient_p100"]),
    ],
    ids=["decimals", "many decimals"],
)
def test_each_percentile_has_a_name_of_its_own(percentiles: Any, expected: list[str]) -> None:
    found = names("standard", **{"gradients.percentiles": percentiles})
    assert list(found[-3:]) == [*expected, "gradient_percentiles_known"]


def test_a_copy_counts_its_own() -> None:
    config = TelemetryConfig.standard()
    assert config.feature_specs
    copied = config.model_copy(update={"gradients": TelemetryConfig.minimal().gradients})
    assert copied.feature_specs == TelemetryConfig.minimal().feature_specs


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_missing_is_within_the_range(profile: str) -> None:
    for spec in (*TelemetryConfig.from_profile(profile).feature_specs, *SEED_FEATURES):
        assert spec.low <= spec.missing <= spec.high


@pytest.mark.parametrize(
    ("squash", "values", "text"),
    [
        (Clip(), {-1.0: 0.0, 0.5: 0.5, INF: 1.0}, "x, cut to 0 .. 1"),
        (Saturate(0.5), {0.0: 0.0, 0.5: 0.5, -1.5: -0.75, INF: 1.0, -INF: -1.0}, "x / (0.5 + abs(x))"),
        (
            Decades(-2, 2),
            {-1.0: 0.0, 0.0: 0.0, 1e-9: 0.0, 0.1: 0.25, 1.0: 0.5, 1e9: 1.0, INF: 1.0},
            "(log10 x + 2) / 4, cut to 0 .. 1",
        ),
    ],
    ids=["clip", "saturate", "decades"],
)
def test_a_transform_does_what_it_says(squash: Any, values: dict[float, float], text: str) -> None:
    assert {value: squash(value) for value in values} == pytest.approx(values)
    assert str(squash) == text


def test_what_is_missing_and_what_is_nan_become_the_same() -> None:
    spec = FeatureSpec("x", -1.0, 1.0, Saturate(1.0), "", missing=0.25)
    assert (spec.value(None), spec.value(float("nan")), spec.value(1.0)) == (0.25, 0.25, 0.5)


def test_a_range_holds_whatever_the_transform_returns() -> None:
    assert FeatureSpec("x", 0.0, 1.0, Saturate(1.0), "").value(-5.0) == 0.0
