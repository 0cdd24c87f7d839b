"""A tracker as a bounded vector of fixed length, and a seed as another."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nissa
from nissa import EpochSnapshot, Stage
from nissa.config import FEATURE_VERSION, PROFILES, SEED_FEATURES, TelemetryConfig
from nissa.config.feature_layout import FLAGS
from nissa.diagnostics.features import seed_features
from nissa.diagnostics.layers import LayerGradients
from nissa.diagnostics.observations import Observations
from nissa.diagnostics.rules import RULES
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.events import SeedSnapshot, SpanIds
from nissa.hub.measurements import GradientHealth

INF, NAN = math.inf, math.nan
HEALTH = GradientHealth(score=0.5, global_norm=1.0, layers=4, vanishing=("a", "b"), exploding=("c",))
EVERYTHING: dict[str, Any] = {
    "per_class": {"enabled": True, "track_loss": True, "track_confusion": True},
    "sharpness": {"enabled": True},
}


class Signals:
    """Snapshots that nobody diagnosed."""

    def __init__(self, config: TelemetryConfig, history: Sequence[EpochSnapshot]) -> None:
        self.config, self.history = config, list(history)


def vector(config: TelemetryConfig, *history: EpochSnapshot) -> dict[str, float]:
    found = nissa.signals_to_features(Signals(config, history))
    return dict(zip(config.feature_names, found, strict=True))


def one(**fields: Any) -> dict[str, float]:
    return vector(
        TelemetryConfig.from_profile("research", EVERYTHING), EpochSnapshot(epoch=fields.pop("epoch", 1), **fields)
    )


@pytest.mark.parametrize("profile", [*PROFILES, "custom"])
def test_the_length_is_known_before_training_starts(profile: str) -> None:
    config = TelemetryConfig.from_profile(profile)
    tracker = DiagnosticTracker(config)
    assert len(tracker.features()) == config.feature_count == len(config.feature_specs)
    fields: dict[str, Any] = {"validation_loss": 1.0, "gradient_health": HEALTH, "per_class_accuracy": {"a": 0.5}}
    tracker.diagnose(Observations(epoch=0, **fields))
    found = tracker.features()
    assert found == nissa.signals_to_features(tracker)
    assert len(found) == config.feature_count
    assert all(type(value) is float for value in found)


@pytest.mark.parametrize("profile", [*PROFILES, "custom"])
def test_before_the_first_validation_everything_is_missing(profile: str) -> None:
    config = TelemetryConfig.from_profile(profile)
    assert DiagnosticTracker(config).features() == tuple(spec.missing for spec in config.feature_specs)


def test_what_was_not_measured_is_zero_and_said_to_be_unknown() -> None:
    found = one(epoch=None)
    assert {name: value for name, value in found.items() if value} == {}


def test_what_was_measured_as_zero_is_said_to_be_known() -> None:
    zeros = dict.fromkeys(("train_loss", "validation_loss", "train_accuracy", "loss_noise", "stability_margin"), 0.0)
    found = one(**zeros)
    for name in zeros:
        assert (found[name], found[f"{name}_known"]) == (0.0, 1.0)
    assert (found["accuracy_delta"], found["accuracy_delta_known"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"epoch": 50}, {"epoch": 0.5}),
        ({"train_loss": 1.0, "validation_loss": 3.0}, {"train_loss": 0.5, "validation_loss": 0.75}),
        ({"loss_delta": -0.1}, {"loss_delta": -0.5}),
        ({"validation_accuracy": 0.25}, {"validation_accuracy": 0.25}),
        ({"accuracy_delta": 0.05}, {"accuracy_delta": 0.5}),
        ({"train_validation_gap": -0.5}, {"train_validation_gap": -0.5}),
        ({"plateau_length": 5}, {"plateau_length": 0.5}),
        ({"learning_rate": 1e-3}, {"learning_rate": 0.5}),
        ({"stability_margin": 1.0}, {"stability_margin": 0.5}),
        ({"sharpness": {"critical": 10.0}}, {"sharpness_critical": 0.5, "sharpness_average_case": 0.0}),
        ({"gradient_health": HEALTH}, {"gradient_health": 0.5, "gradient_global_norm": 0.5}),
        ({"gradient_health": HEALTH}, {"vanishing_layers": 0.5, "exploding_layers": 0.25, "nonfinite_layers": 0.0}),
        ({"per_class_accuracy": {"a": 0.25, "b": 0.75, "c": NAN}}, {"class_accuracy_mean": 0.5}),
        ({"per_class_accuracy": {"a": 0.25, "b": 0.75}}, {"class_accuracy_worst": 0.25, "class_accuracy_best": 0.75}),
        ({"class_variance": 0.02}, {"class_variance": 0.5}),
        ({"per_class_loss": {"a": 0.5, "b": 1.0}}, {"class_loss_worst": 0.5}),
        ({"confusion": ((3, 1, 0), (0, 1, 1), (0, 0, 0))}, {"class_confusion_worst": 0.5}),
        ({"weight_norms": {"a": 1.0, "b": 1.0, "c": NAN}}, {"weight_norm": 0.5}),
    ],
    ids=str,
)
def test_each_number_is_where_its_specification_says(fields: dict[str, Any], expected: dict[str, float]) -> None:
    found = one(**fields)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_layers_are_told_by_how_far_their_norms_are_apart_and_by_zeros_and_updates() -> None:
    layers = (
        LayerGradients(name="a", norm=0.1, zero_fraction=0.25, update_ratio=1e-4),
        LayerGradients(name="b", norm=10.0, zero_fraction=0.75, update_ratio=1e-2),
        LayerGradients(name="c", norm=0.0, zero_fraction=None),
    )
    found = one(gradient_health=HEALTH, gradient_stats=layers)
    assert found["gradient_norm_spread"] == pytest.approx(0.5)  # one decade around their mean
    assert found["gradient_zero_fraction"] == 0.75
    assert found["update_ratio_largest"] == pytest.approx(0.75)
    assert found["update_ratio_known"] == 1.0


def test_percentiles_have_the_names_of_their_numbers() -> None:
    config = TelemetryConfig.from_profile("standard", {"gradients": {"percentiles": [0.5, 99.9]}})
    fields: dict[str, Any] = {"epoch": 0, "gradient_health": HEALTH}
    found = vector(config, EpochSnapshot(**fields, gradient_percentiles={0.5: 1e-8, 99.9: 1.0}))
    assert (found["gradient_p0.5"], found["gradient_p99.9"], found["gradient_percentiles_known"]) == (0.0, 0.5, 1.0)
    found = vector(config, EpochSnapshot(**fields, gradient_percentiles={99.9: 1.0}))
    assert (found["gradient_p0.5"], found["gradient_percentiles_known"]) == (0.0, 0.0)


def test_gradients_of_no_layer_are_not_zero_layers_in_trouble() -> None:
    found = one(gradient_health=GradientHealth(score=None, global_norm=None, layers=0))
    assert (found["vanishing_layers"], found["gradient_health_known"]) == (0.0, 0.0)


def test_changes_look_back_over_validations_that_had_a_number() -> None:
    losses = [9.0, 1.1, 1.0, None, NAN, 1.2, 1.1, 1.0]
    history = [EpochSnapshot(epoch=i, validation_loss=loss) for i, loss in enumerate(losses)]
    found = vector(TelemetryConfig.minimal(), *history)
    changes = [found[f"loss_change_{back}"] for back in (1, 2, 3, 4)]
    assert changes == pytest.approx([-0.5, -2 / 3, 0.0, -0.5])
    assert found["loss_changes_known"] == 1.0
    found = vector(TelemetryConfig.minimal(), *history[1:3])
    assert (found["loss_changes_known"], found["accuracy_changes_known"]) == (0.25, 0.0)
    assert vector(TelemetryConfig.minimal(), *history[:5])["loss_changes_known"] == 0.0


def test_a_flag_tells_raised_from_fine_from_not_judged() -> None:
    found = one(red_flags=("overfitting",), judged_flags=("overfitting", "sustained_plateau"))
    flags = [found[f"flag_{name}"] for name in ("overfitting", "sustained_plateau", "vanishing_gradients")]
    assert flags == [1.0, -1.0, 0.0]


def test_nan_is_missing_and_a_flag_of_its_own_and_infinity_is_the_end_of_the_range() -> None:
    found = one(train_loss=NAN, validation_loss=-INF, accuracy_delta=INF)
    assert (found["train_loss"], found["train_loss_known"], found["loss_nonfinite"]) == (0.0, 0.0, 1.0)
    assert (found["validation_loss"], found["validation_loss_known"], found["accuracy_delta"]) == (-1.0, 1.0, 1.0)


any_number = st.none() | st.floats()
layers = st.builds(
    LayerGradients,
    name=st.text(),
    norm=any_number.map(lambda x: x and abs(x)),
    zero_fraction=any_number,
    update_ratio=any_number,
)
health = st.builds(GradientHealth, score=any_number, global_norm=any_number, layers=st.integers(1, 9))
by_name = st.dictionaries(st.text(max_size=2), st.floats(), max_size=3)
snapshots = st.builds(
    EpochSnapshot,
    epoch=st.none() | st.integers(),
    learning_rate=any_number,
    train_loss=any_number,
    loss_noise=any_number,
    validation_loss=any_number,
    loss_delta=any_number,
    validation_accuracy=any_number,
    accuracy_delta=any_number,
    train_validation_gap=any_number,
    gradient_health=st.none() | health,
    gradient_stats=st.lists(layers, max_size=3).map(tuple),
    gradient_percentiles=st.dictionaries(st.sampled_from([1.0, 50.0, 99.0]), st.floats()),
    weight_norms=by_name,
    per_class_accuracy=by_name,
    per_class_loss=by_name,
    confusion=st.none() | st.just(((0, 0), (1, 2))),
    class_variance=any_number,
    sharpness=st.dictionaries(st.sampled_from(["critical", "average_case"]), st.floats()),
    stability_margin=any_number,
    best_loss=any_number,
    plateau_length=st.integers(0),
)


@given(history=st.lists(snapshots, max_size=4), profile=st.sampled_from([*PROFILES, "custom"]))
def test_every_number_is_finite_and_within_its_range(history: list[EpochSnapshot], profile: str) -> None:
    config = TelemetryConfig.from_profile(profile, {"sharpness": {"enabled": True}})
    found = nissa.signals_to_features(Signals(config, history))
    assert len(found) == config.feature_count
    for spec, value in zip(config.feature_specs, found, strict=True):
        assert math.isfinite(value), spec.name
        assert spec.low <= value <= spec.high, spec.name


def test_each_mask_is_named_by_those_that_it_is_of() -> None:
    config = TelemetryConfig.from_profile("research", EVERYTHING)
    names = set(config.feature_names)
    masks = {spec.known for spec in (*config.feature_specs, *SEED_FEATURES)} - {None}
    assert {name for name in names if name.endswith("_known")} <= masks
    assert masks <= names | {spec.name for spec in SEED_FEATURES}


def test_every_rule_has_an_entry() -> None:
    assert [rule.name for rule in RULES] == list(FLAGS)


def test_a_change_of_names_is_a_change_of_version() -> None:
    """Where this fails, count `FEATURE_VERSION` up and write down the new number beside the old ones."""
    config = TelemetryConfig.from_profile("research", EVERYTHING)
    specs = [*config.feature_specs, *SEED_FEATURES]
    text = "\n".join(f"{spec.name} {spec.low} {spec.high} {spec.missing} {spec.transform}" for spec in specs)
    pinned = {1: "b0d511e2f7f39ed1"}
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == pinned[FEATURE_VERSION]


def seed(**fields: Any) -> SeedSnapshot:
    told: dict[str, Any] = {
        "seed_id": "s",
        "env_id": None,
        "slot_id": "r0c0",
        "blueprint_id": "conv",
        "parameters": 4,
        "ids": SpanIds(1, 2),
        "first_root": 2,
        "attempt": 0,
        "stage": Stage.BLENDING,
        "previous": Stage.TRAINING,
        "germinated_at": 0,
        "stage_since": 0,
        "epochs_total": 25,
        "epochs_in_stage": 10,
        "alpha": 0.5,
        "improvement": None,
        "isolation_violations": 0,
    }
    return SeedSnapshot(**told | fields)


def told_of(*args: Any, **fields: Any) -> dict[str, float]:
    found = seed_features(*args, **fields)
    return dict(zip([spec.name for spec in SEED_FEATURES], found, strict=True))


def test_a_seed_has_the_entries_of_the_original_and_says_what_is_known() -> None:
    found = told_of(seed(accuracy=0.75, accuracy_delta=0.05), health=HEALTH, ratio=1.0)
    assert {name: value for name, value in found.items() if not name.endswith("_known")} == {
        "seed_gradient_norm": 0.5,
        "seed_gradient_health": 0.5,
        "seed_vanishing": 0.5,
        "seed_exploding": 0.25,
        "seed_gradient_ratio": 0.5,
        "seed_stage": 0.4,
        "seed_epochs_in_stage": 0.5,
        "seed_epochs_total": 0.5,
        "seed_accuracy": 0.75,
        "seed_accuracy_delta": 0.5,
        "seed_alpha": 0.5,
    }
    assert {value for name, value in found.items() if name.endswith("_known")} == {1.0}


def test_of_a_seed_whose_gradients_nobody_measured_they_are_unknown() -> None:
    found = told_of(seed(alpha=None))
    assert {value for name, value in found.items() if name.endswith("_known")} == {0.0}


@pytest.mark.parametrize("stage", list(Stage), ids=lambda stage: stage.label)
def test_every_stage_has_a_number_of_its_own(stage: Stage) -> None:
    others = [told_of(seed(stage=each))["seed_stage"] for each in Stage if each is not stage]
    assert told_of(seed(stage=stage))["seed_stage"] not in others


@given(seed_health=st.none() | health, ratio=any_number, accuracy=any_number, delta=any_number, alpha=any_number)
def test_a_seed_s_numbers_are_finite_and_within_their_range(
    *,
    seed_health: GradientHealth | None,
    ratio: float | None,
    accuracy: float | None,
    delta: float | None,
    alpha: float | None,
) -> None:
    found = seed_features(seed(alpha=alpha, accuracy=accuracy, accuracy_delta=delta), health=seed_health, ratio=ratio)
    for spec, value in zip(SEED_FEATURES, found, strict=True):
        assert math.isfinite(value), spec.name
        assert spec.low <= value <= spec.high, spec.name
