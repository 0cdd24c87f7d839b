import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from nissa import EpochSnapshot, EventType
from nissa.config import TelemetryConfig
from nissa.diagnostics.classes import of_classes
from nissa.diagnostics.layers import LayerGradients
from nissa.diagnostics.observations import Observations
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.hub.measurements import GradientHealth
from nissa.semconv.cardinality import CardinalityLimiter
from tests.unit.diagnostics.readings import step

INF, NAN = float("inf"), float("nan")


def tracker(profile: str = "diagnostic", **overrides: Any) -> DiagnosticTracker:
    overrides = {"diagnostics__rules__validations": 1} | overrides  # no rule waits for a second opinion
    return DiagnosticTracker(TelemetryConfig.from_profile(profile, overrides))


def seen(epoch: int | None = 0, **fields: Any) -> Observations:
    return Observations(epoch=epoch, **fields)


def snapshots(losses: Iterable[float | None], following: DiagnosticTracker | None = None) -> list[EpochSnapshot]:
    following = following or tracker()
    return [
        following.diagnose(seen(epoch, validation_loss=loss)).snapshot for epoch, loss in enumerate(losses)
    ]  # fmt: skip


def lengths(losses: Iterable[float | None], **overrides: Any) -> list[int]:
    return [each.plateau_length for each in snapshots(losses, tracker(**overrides))]


def test_what_nobody_measured_is_absent() -> None:
    snapshot = tracker("research").diagnose(seen(None)).snapshot
    assert snapshot.to_dict().keys() <= {"plateau_length", "narrative", "judged_flags"}
    assert (snapshot.plateau_length, snapshot.narrative) == (0, "No measurements yet")


def test_zeros_were_measured() -> None:
    health = GradientHealth(score=0.0, global_norm=0.0, layers=1)
    zeros = dict.fromkeys(("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"), 0.0)
    following = tracker()
    following.diagnose(seen(0, **zeros))
    found = following.diagnose(seen(0, **zeros, gradient_health=health, per_class_accuracy={"a": 0.0})).snapshot
    names = (*zeros, "epoch", "loss_delta", "accuracy_delta", "train_validation_gap", "best_loss", "best_accuracy")
    assert {name: getattr(found, name) for name in names} == dict.fromkeys(names, 0)
    assert (found.class_variance, found.per_class_accuracy) == (0.0, {"a": 0.0})
    assert found.gradient_health == health


def test_differences_need_both_sides() -> None:
    found = snapshots([1.0, None, 3.0, 2.5])
    assert [each.loss_delta for each in found] == [None, None, None, -0.5]
    only_train = tracker().diagnose(seen(train_loss=1.0)).snapshot
    assert only_train.train_validation_gap is None


def test_the_gap_is_validation_minus_training() -> None:
    found = tracker().diagnose(seen(train_loss=0.25, validation_loss=1.0)).snapshot
    assert found.train_validation_gap == 0.75
    assert found.narrative == "Possible overfitting (train-val gap: 0.75)"


def test_the_best_so_far_includes_this_epoch_and_nothing_that_is_not_finite() -> None:
    assert [each.best_loss for each in snapshots([None, NAN, 2.0, 1.0, -INF, 3.0])] == [None, None, 2.0, 1.0, 1.0, 1.0]
    following = tracker()
    found = [following.diagnose(seen(validation_accuracy=each)).snapshot for each in (0.0, 0.3, NAN, 0.2)]
    assert [each.best_accuracy for each in found] == [0.0, 0.3, 0.3, 0.3]


def test_the_best_outlives_the_history() -> None:
    found = snapshots([0.5, *[1.0] * 20], tracker("minimal"))
    assert found[-1].best_loss == 0.5


def test_a_plateau_counts_the_current_epoch() -> None:
    assert lengths([0.5, 0.5, 0.5, 0.5]) == [1, 2, 3, 4]


def test_a_plateau_is_flagged_at_exactly_as_many_epochs_as_configured() -> None:
    for epochs in (2, 3, 5):
        found = snapshots([0.5] * 6, tracker(diagnostics__plateau_epochs=epochs))
        raised = ["sustained_plateau" in each.red_flags for each in found]
        assert raised == [index + 1 >= epochs for index in range(6)]


def test_a_plateau_is_told_in_all_three_ways_at_once() -> None:
    following = tracker()
    diagnoses = [following.diagnose(seen(epoch, validation_loss=0.5)) for epoch in range(4)]
    assert [[kind for kind, _ in each.trends] for each in diagnoses] == [[], [], [EventType.PLATEAU_DETECTED], []]
    assert diagnoses[2].trends[0][1] == {"plateau_length": 3}
    assert diagnoses[2].snapshot.narrative == "Loss plateaued for 3 epochs at ~0.500"
    assert diagnoses[2].flags["sustained_plateau"]


def test_a_loss_that_moves_slowly_leaves_the_plateau() -> None:
    assert lengths([0.5, 0.502, 0.504, 0.506]) == [1, 2, 1, 2]


def test_a_loss_that_moves_ends_a_plateau() -> None:
    assert lengths([0.5, 0.5, 0.5, 0.4, 0.4]) == [1, 2, 3, 1, 2]


def test_a_loss_exactly_at_the_distance_has_moved() -> None:
    assert lengths([0.5, 0.75, 0.75], diagnostics__plateau_delta=0.25) == [1, 1, 2]


def test_an_epoch_without_a_loss_neither_counts_nor_ends_a_plateau() -> None:
    assert lengths([0.5, None, 0.5]) == [1, 1, 2]
    assert lengths([None, None]) == [0, 0]


def test_a_loss_that_was_not_on_the_host_in_time_ends_a_plateau() -> None:
    following = tracker()
    late = {"incomplete": ("validation_loss", "validation_accuracy")}
    told: list[dict[str, Any]] = [{"validation_loss": 0.5}, {"validation_loss": 0.5}, late, {"validation_loss": 0.5}]
    found = [following.diagnose(seen(epoch, **fields)).snapshot for epoch, fields in enumerate(told)]
    assert [each.plateau_length for each in found] == [1, 2, 0, 1]
    assert found[2].incomplete == late["incomplete"]


def test_a_loss_that_is_not_finite_ends_a_plateau() -> None:
    assert lengths([0.5, 0.5, 0.5, NAN, 0.5]) == [1, 2, 3, 0, 1]
    found = snapshots([0.5, 0.5, 0.5, INF])[-1]
    assert found.red_flags[0] == "nonfinite_loss"
    assert found.narrative == "Loss is not finite"


def test_every_flag_has_its_state_and_the_raised_ones_are_in_the_snapshot() -> None:
    diagnosis = tracker().diagnose(seen(validation_loss=NAN))
    assert diagnosis.flags == {"nonfinite_loss": True}
    assert diagnosis.snapshot.judged_flags == ("nonfinite_loss",)
    assert [(each.name, each.raised) for each in diagnosis.changes] == [("nonfinite_loss", True)]
    assert diagnosis.snapshot.red_flags == tuple(name for name, state in diagnosis.flags.items() if state)


def test_stable_training_needs_this_epoch_and_four_before_it() -> None:
    found = snapshots([1.0] * 6, tracker("minimal"))
    assert ["stable_training" in each.opportunities for each in found] == [False] * 4 + [True] * 2


def test_the_history_keeps_as_many_as_configured() -> None:
    following = tracker("minimal")
    found = snapshots([float(index) for index in range(9)], following)
    assert list(following.history) == found[-5:]


def test_an_improvement_is_told_even_where_the_history_is_short() -> None:
    following = tracker("minimal")
    found = [following.diagnose(seen(validation_accuracy=index / 10)).trends for index in range(7)]
    assert [[kind for kind, _ in each] for each in found][5] == [EventType.IMPROVEMENT_DETECTED]


@pytest.mark.parametrize("profile", ["minimal", "standard"])
def test_classes_are_only_kept_where_the_profile_says_so(profile: str) -> None:
    found = tracker(profile).diagnose(seen(per_class_accuracy={"a": 0.0, "b": 1.0})).snapshot
    assert (found.per_class_accuracy, found.class_variance) == ({}, None)
    assert "severe_class_imbalance" not in found.red_flags


def test_classes_are_called_what_they_are_called_as_text() -> None:
    given = {3: 0.5, "cat": 0.25, np.int64(7): 1, True: 0.0}
    found = tracker().diagnose(seen(per_class_accuracy=given)).snapshot.per_class_accuracy
    assert found == {"3": 0.5, "cat": 0.25, "7": 1.0, "True": 0.0}
    assert all(type(value) is float for value in found.values())


def test_a_class_that_nobody_measured_is_absent() -> None:
    found = tracker().diagnose(seen(per_class_accuracy={"a": None, "b": 0.5})).snapshot
    assert (found.per_class_accuracy, found.class_variance) == ({"b": 0.5}, 0.0)
    assert tracker().diagnose(seen(per_class_accuracy={})).snapshot.class_variance is None


def test_a_class_without_a_number_is_kept_but_is_in_no_statistic() -> None:
    found = tracker().diagnose(seen(per_class_accuracy={"a": 0.25, "b": 0.75, "c": NAN})).snapshot
    assert set(found.per_class_accuracy) == {"a", "b", "c"}
    assert found.class_variance == 0.0625


def test_there_are_at_most_as_many_classes_as_configured() -> None:
    given: dict[object, float | None] = {None: None, **dict.fromkeys(range(10), 0.5)}
    found = tracker(per_class__max_classes=3).diagnose(seen(per_class_accuracy=given)).snapshot
    assert list(found.per_class_accuracy) == ["0", "1", "2"]


CLASSES: dict[str, Any] = {
    "per_class_accuracy": {"a": 0.5, "b": 1.0},
    "per_class_loss": {"a": 0.7, "b": None},
    "per_class_support": {"a": 4, "b": np.int64(2)},
    "confusion": [[2, 2], [0, np.int64(2)]],
    "class_names": ["a", "b"],
}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"enabled": False, "track_loss": True, "track_confusion": True}, set()),
        ({"enabled": True}, {"per_class_accuracy", "per_class_support"}),
        ({"enabled": True, "track_loss": True}, {"per_class_accuracy", "per_class_support", "per_class_loss"}),
        (
            {"enabled": True, "track_confusion": True},
            {"per_class_accuracy", "per_class_support", "confusion", "class_names"},
        ),
    ],
    ids=["off", "accuracy", "loss", "confusion"],
)
def test_each_setting_of_classes_keeps_what_it_names(settings: dict[str, Any], kept: set[str]) -> None:
    found = tracker("minimal", per_class=settings).diagnose(seen(**CLASSES)).snapshot
    assert {name for name in CLASSES if getattr(found, name)} == kept


def test_what_is_kept_of_classes_is_plain() -> None:
    found = tracker("research").diagnose(seen(**CLASSES)).snapshot
    assert found.per_class_loss == {"a": 0.7}
    assert found.per_class_support == {"a": 4, "b": 2}
    assert found.confusion == ((2, 2), (0, 2))
    assert {type(each) for row in found.confusion for each in row} == {int}
    assert found.class_names == ("a", "b")


def test_a_confusion_of_more_classes_than_are_kept_is_left_out_whole() -> None:
    found = tracker("research", per_class__max_classes=1).diagnose(seen(**CLASSES)).snapshot
    assert (found.confusion, found.class_names) == (None, ())
    assert found.per_class_accuracy == {"a": 0.5}


def test_the_first_classes_are_kept_and_the_rest_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    diagnostics = tracker("research", per_class__max_classes=2)
    for names in ("ab", "cba"):
        found = diagnostics.diagnose(seen(per_class_accuracy=dict.fromkeys(names, 0.5))).snapshot
        assert sorted(found.per_class_accuracy) == ["a", "b"]
    (record,) = caplog.records
    assert "raise per_class.max_classes" in record.getMessage()


def test_the_variance_of_what_no_float_holds_is_infinite() -> None:
    found = of_classes(
        seen(per_class_accuracy={"a": 1e308, "b": -1e308}),
        TelemetryConfig.diagnostic().per_class,
        CardinalityLimiter(9, "classes", "x"),
    )
    assert found["class_variance"] == INF


def test_norms_of_weights_are_those_of_the_layers_by_model() -> None:
    layers = (
        LayerGradients(name="w", weight_norm=2.0),
        LayerGradients(name="w", model_name="critic", weight_norm=NAN),
        LayerGradients(name="b"),
    )
    found = tracker().diagnose(seen(gradient_stats=layers)).snapshot
    assert found.gradient_stats == layers
    assert found.weight_norms == {"w": 2.0, "critic:w": pytest.approx(NAN, nan_ok=True)}


def test_what_was_told_is_in_the_snapshot_as_it_was_told() -> None:
    told: dict[str, Any] = {
        "env_id": "7",
        "time_unix_nano": 5,
        "step": 12,
        "learning_rate": 0.1,
        "loss_noise": 0.0,
        "sharpness": {"critical": INF},
        "sharpness_error": {"average_case": 0.1},
        "stability_margin": 0.5,
        "gradient_percentiles": {50.0: 0.1},
    }
    found = tracker().diagnose(seen(**told)).snapshot
    assert {name: getattr(found, name) for name in told} == told


def test_a_snapshot_of_everything_survives_json() -> None:
    health = GradientHealth(score=0.5, global_norm=2.0, layers=2, vanishing=("a",))
    layer = LayerGradients(name="a", norm=2.0, percentiles={99.9: INF}, nonfinite=3)
    following = tracker("research")
    following.diagnose(seen(0, validation_loss=1.0, validation_accuracy=0.5))
    found = following.diagnose(
        seen(
            1,
            **CLASSES,
            train_loss=-INF,
            validation_loss=2.0,
            validation_accuracy=0.25,
            gradient_health=health,
            gradient_stats=(layer,),
            gradient_percentiles={99.9: INF},
            sharpness={"critical": INF},
        )
    ).snapshot
    read = EpochSnapshot.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert read == found


def test_losses_that_measure_something_else_have_no_gap() -> None:
    # A sum over 359 examples, beside sums over batches of 64; the same without the sum.
    summed, mean = tracker(), tracker()
    summed.rules.judge([step(1000.0, number) for number in range(10)], [])
    mean.rules.judge([step(16.0, number) for number in range(10)], [])
    for epoch, loss in enumerate((900.0, 700.0, 600.0)):
        sums = summed.diagnose(Observations(epoch=epoch, train_loss=loss, validation_loss=5.6 * loss))
        means = mean.diagnose(Observations(epoch=epoch, train_loss=loss / 64, validation_loss=loss / 60))
        assert (sums.snapshot.train_validation_gap, "overfitting" in sums.flags) == (None, False)
        assert "overfitting" not in sums.snapshot.narrative
        assert means.snapshot.train_validation_gap == pytest.approx(loss / 60 - loss / 64)
        assert means.flags["overfitting"] is False
