from dataclasses import replace
from statistics import pvariance
from typing import Any

import pytest

from nissa.diagnostics.finding import Finding
from nissa.diagnostics.rulebook import RuleBook
from nissa.diagnostics.snapshot import EpochSnapshot
from tests.unit.diagnostics.readings import book, validated

NAN = float("nan")


def told(snapshots: list[EpochSnapshot], name: str, rules: RuleBook | None = None) -> list[Finding]:
    rules = rules or book()
    return [found for each in snapshots for found in rules.epoch(each) if found.name == name]


def gap(train: float, validation: float) -> EpochSnapshot:
    return validated(validation, train_loss=train, train_validation_gap=validation - train)


def test_a_gap_that_stays_while_training_gets_better_is_overfitting() -> None:
    better = [gap(2.0, 2.0), gap(0.5, 1.5), gap(0.2, 1.7)]
    (found,) = told(better, "overfitting")
    assert found.seen == "Possible overfitting (train-val gap: 1.50)"
    assert told(better[:2], "overfitting") == []


def test_a_gap_of_a_training_that_fails_is_no_overfitting() -> None:
    assert told([gap(0.5, 0.5), *[gap(9.0, 20.0)] * 4], "overfitting") == []
    assert told([gap(1000.0, 1000.0), *[gap(900.0, 902.0)] * 4], "overfitting") == []


def test_a_gap_that_closes_is_over() -> None:
    raised, over = told([gap(2.0, 2.0), gap(0.5, 1.5), gap(0.2, 1.7), gap(0.2, 0.3)], "overfitting")
    assert (raised.raised, over.raised) == (True, False)


def classes(*accuracies: float, support: int = 100, **more: Any) -> EpochSnapshot:
    names = [str(n) for n in range(len(accuracies))]
    known = [each for each in accuracies if each == each]  # noqa: PLR0124 - NaN differs from itself
    return validated(
        1.0,
        class_variance=pvariance(known) if known else None,
        per_class_accuracy=dict(zip(names, accuracies, strict=True)),
        per_class_support=dict.fromkeys(names, support),
        **more,
    )


def test_a_class_that_is_hardly_recognised_where_others_are_is_imbalance() -> None:
    (found,) = told([classes(0.1, 0.9, 0.95, 0.9)] * 4, "severe_class_imbalance")
    assert found.seen == "Class imbalance: 0=10% vs 2=95%"


@pytest.mark.parametrize(
    "snapshots",
    [
        pytest.param([classes(0.1, 0.9, 0.95, 0.9)] * 2, id="not settled yet"),
        pytest.param([classes(0.1, 0.5 + n / 10, 0.9, 0.9) for n in range(4)], id="accuracy rising"),
        pytest.param([classes(0.1, 0.9, 0.95, 0.9, loss_delta=-0.2)] * 4, id="loss falling"),
        pytest.param([classes(0.0, 0.0, 0.0, 0.9)] * 4, id="hardly anything is recognised"),
        pytest.param([classes(0.7, 0.9, 0.95, 0.9)] * 4, id="small spread"),
        pytest.param([classes(0.4, 0.9, 0.95, 0.9, support=2)] * 4, id="few examples"),
        pytest.param([classes(NAN, 0.9, 0.95, 0.9)] * 4, id="absent class"),
    ],
)
def test_classes_may_differ(snapshots: list[EpochSnapshot]) -> None:
    rules = book()
    assert told(snapshots, "severe_class_imbalance", rules) == []
    assert rules.flags["severe_class_imbalance"] is False


def test_one_class_has_no_spread() -> None:
    rules = book()
    rules.epoch(classes(0.5))
    assert "severe_class_imbalance" not in rules.flags


def plateau(loss: float, length: int) -> EpochSnapshot:
    return validated(loss, plateau_length=length)


def test_a_plateau_well_above_convergence_is_told() -> None:
    (found,) = told([plateau(2.3, 1), plateau(2.3, 2), plateau(2.3, 3)], "sustained_plateau")
    assert found.seen == "Loss plateaued for 3 epochs at ~2.300"


def test_a_training_that_is_done_stands_still() -> None:
    assert told([plateau(2.3, 1), plateau(0.1, 3), plateau(0.1, 9)], "sustained_plateau") == []


def slow(losses: list[float], train: float = 2.3) -> list[EpochSnapshot]:
    return [validated(loss, train_loss=train) for loss in losses]


def test_a_loss_that_falls_steadily_and_hardly_wants_a_higher_rate() -> None:
    (found,) = told(slow([2.3 - n / 1000 for n in range(7)]), "learning_rate_too_low")
    assert found.certainty == "possible"


def test_progress_convergence_and_noise_want_none() -> None:
    assert told(slow([2.3 - n / 10 for n in range(9)]), "learning_rate_too_low") == []
    assert told(slow([2.3 + (-1) ** n / 1000 for n in range(20)]), "learning_rate_too_low") == []
    done = [validated(0.2 - n / 10_000, train_loss=2.3 if n == 0 else 0.1) for n in range(12)]
    assert told(done, "learning_rate_too_low") == []


def test_a_sharp_minimum_is_one_by_either_measure() -> None:
    (average,) = told([validated(1.0, sharpness={"average_case": 3.0})] * 2, "sharp_minimum")
    assert average.seen == "Sharp minimum (3.00)"
    (margin,) = told([validated(1.0, stability_margin=1.6)] * 2, "sharp_minimum")
    assert margin.limit == 1.25


def test_what_its_error_could_explain_is_not_sharp() -> None:
    unsure = validated(1.0, sharpness={"average_case": 1.4}, sharpness_error={"average_case": 0.5})
    assert told([unsure] * 4, "sharp_minimum") == []


def test_without_sharpness_there_is_no_flag() -> None:
    rules = book()
    rules.epoch(validated(1.0))
    assert "sharp_minimum" not in rules.flags


@pytest.mark.parametrize("wrong", [1e308, -0.1, 42.0])
def test_what_is_no_accuracy_is_not_judged(wrong: float) -> None:
    rules = book()
    rules.epoch(validated(1.0, per_class_accuracy={"a": wrong, "b": 0.5}))
    assert "severe_class_imbalance" not in rules.flags


def test_a_small_loss_that_falls_by_its_own_measure_is_no_plateau() -> None:
    moving = [validated(0.5, plateau_length=1), validated(0.2, plateau_length=3, loss_delta=-0.004)]
    assert told(moving, "sustained_plateau") == []
    assert told([moving[0], validated(0.2, plateau_length=3, loss_delta=-0.001)], "sustained_plateau")


LATE: dict[str, Any] = {"incomplete": ("validation_loss", "train_loss")}


def test_a_later_validation_is_not_taken_for_the_first() -> None:
    done = [plateau(0.2, 1), plateau(0.2, 2), plateau(0.2, 3)]
    assert told([validated(None), *done], "sustained_plateau")
    assert told([validated(None, **LATE), *done], "sustained_plateau") == []
    falling = slow([2.3 - n / 1000 for n in range(9)])
    assert told([validated(None), *falling], "learning_rate_too_low")
    assert told([validated(None, **LATE), *falling], "learning_rate_too_low") == []


def test_validations_on_both_sides_of_one_that_was_lost_are_not_in_a_row() -> None:
    falling = slow([2.3 - n / 1000 for n in range(12)])
    falling[5] = validated(None, **LATE)
    assert told(falling, "learning_rate_too_low") == []
    over = [gap(2.0, 2.0), gap(0.5, 1.5), validated(None, **LATE), gap(0.2, 1.7)]
    assert told(over, "overfitting") == []
    assert told([*over, gap(0.2, 1.7)], "overfitting")


def test_a_training_loss_of_a_part_of_an_epoch_makes_no_gap() -> None:
    part = [validated(3.0, train_loss=0.1, train_validation_gap=2.9, incomplete=("train_loss",))] * 5
    assert told([gap(2.0, 2.0), *part], "overfitting") == []


def test_class_accuracies_that_were_lost_may_have_moved() -> None:
    seen = [classes(0.1, 0.9, 0.95, 0.9)] * 2
    lost = validated(1.0, incomplete=("per_class_accuracy",))
    assert told([*seen, lost, *seen], "severe_class_imbalance") == []


def test_a_training_that_converged_before_its_first_validation_is_no_plateau() -> None:
    # 97 % right after the first epoch, from a loss of 2.3 at the beginning.
    fields: dict[str, Any] = {"train_loss": 0.12, "first_train_loss": 2.3, "validation_accuracy": 0.94}
    still = [validated(0.11, plateau_length=length, **fields) for length in range(1, 9)]
    assert told(still, "sustained_plateau") == []
    nearly = [validated(0.11, plateau_length=length, validation_accuracy=0.97) for length in range(1, 9)]
    assert told(nearly, "sustained_plateau") == []
    # The same losses, where training has not moved either, and where losses cannot be compared.
    assert told([replace(each, first_train_loss=0.13) for each in still], "sustained_plateau")
    assert told([replace(each, train_loss=12.0) for each in still], "sustained_plateau")
