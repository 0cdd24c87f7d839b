from collections.abc import Sequence

import pytest

from nissa import EpochSnapshot, EventType
from nissa.config.sections import DiagnosticsConfig
from nissa.diagnostics.trend import Trend

UP, DOWN, FLAT = EventType.IMPROVEMENT_DETECTED, EventType.PERFORMANCE_DEGRADATION, EventType.PLATEAU_DETECTED


def begun(accuracies: Sequence[float | None], config: DiagnosticsConfig | None = None) -> list[list[EventType]]:
    """What begins with each epoch."""
    trend = Trend(config or DiagnosticsConfig())
    snapshots = [EpochSnapshot(epoch=i, validation_accuracy=each) for i, each in enumerate(accuracies)]
    return [[kind for kind, _ in trend.begins(snapshot)] for snapshot in snapshots]


def plateaus(lengths: list[int]) -> list[list[EventType]]:
    trend = Trend(DiagnosticsConfig())
    return [[kind for kind, _ in trend.begins(EpochSnapshot(epoch=0, plateau_length=each))] for each in lengths]


def test_nothing_begins_before_two_windows_are_full() -> None:
    assert begun([0.1, 0.2, 0.3, 0.4, 0.5]) == [[]] * 5
    assert begun([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == [[]] * 5 + [[UP]]


def test_an_improvement_is_told_when_it_begins_and_not_while_it_lasts() -> None:
    assert begun([index / 20 for index in range(12)]) == [[]] * 5 + [[UP]] + [[]] * 6


def test_a_degradation_is_told_when_it_begins_and_not_while_it_lasts() -> None:
    assert begun([1 - index / 20 for index in range(12)]) == [[]] * 5 + [[DOWN]] + [[]] * 6


def test_a_finding_that_ended_is_told_again() -> None:
    up, flat = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [0.5] * 6
    found = begun([*up, *flat, 0.6, 0.7, 0.8])
    told = [index for index, kinds in enumerate(found) if kinds]
    assert [found[index] for index in told] == [[UP], [UP]]
    assert told[0] == 5
    assert told[1] > 11


def test_what_goes_up_and_comes_down_is_told_both_ways() -> None:
    found = begun([0.0, 0.0, 0.0, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0])
    assert [kinds for kinds in found if kinds] == [[UP], [DOWN]]


def test_a_change_of_exactly_the_threshold_is_no_change() -> None:
    config = DiagnosticsConfig(improvement_delta=0.25, degradation_delta=0.25, rolling_window=1)
    assert begun([0.25, 0.5, 0.25], config) == [[], [], []]
    assert begun([0.25, 0.625, 0.25], config) == [[], [UP], [DOWN]]


def test_epochs_without_an_accuracy_are_passed_over() -> None:
    config = DiagnosticsConfig(rolling_window=1)
    assert begun([None, 0.0, None, float("nan"), 0.5], config) == [[], [], [], [], [UP]]
    assert begun([None] * 12) == [[]] * 12


def test_an_epoch_without_an_accuracy_does_not_tell_it_again() -> None:
    config = DiagnosticsConfig(rolling_window=1)
    assert begun([0.1, 0.5, None, None], config) == [[], [UP], [], []]


def test_the_numbers_behind_a_finding_come_with_it() -> None:
    trend = Trend(DiagnosticsConfig(rolling_window=2))
    for accuracy in (0.0, 0.2, 0.4):
        trend.begins(EpochSnapshot(epoch=0, validation_accuracy=accuracy))
    ((kind, data),) = trend.begins(EpochSnapshot(epoch=3, validation_accuracy=0.6))
    assert kind is UP
    assert data == pytest.approx({"rolling_accuracy": 0.5, "previous_rolling_accuracy": 0.1, "rolling_delta": 0.4})


def test_a_plateau_is_told_once_and_again_after_it_ended() -> None:
    assert plateaus([1, 2, 3, 4, 5, 1, 2, 3]) == [[], [], [FLAT], [], [], [], [], [FLAT]]


def test_a_window_may_be_longer_than_the_history_that_is_kept() -> None:
    config = DiagnosticsConfig(rolling_window=50)
    found = begun([0.1] * 50 + [0.9] * 50, config)
    assert [index for index, kinds in enumerate(found) if kinds] == [99]


def test_windows_on_both_sides_of_an_accuracy_that_was_lost_are_not_compared() -> None:
    trend = Trend(DiagnosticsConfig(rolling_window=1))
    lost = EpochSnapshot(epoch=1, incomplete=("validation_accuracy",))
    told = [trend.begins(each) for each in (EpochSnapshot(epoch=0, validation_accuracy=0.1), lost)]
    told += [trend.begins(EpochSnapshot(epoch=2, validation_accuracy=0.9))]
    assert told == [[], [], []]
