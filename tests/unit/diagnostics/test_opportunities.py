import math
from typing import Any

import pytest

from nissa import EpochSnapshot
from nissa.diagnostics.opportunities import opportunities
from nissa.hub.measurements import GradientHealth


def found(history: tuple[EpochSnapshot, ...] = (), **fields: Any) -> tuple[str, ...]:
    return opportunities(EpochSnapshot(epoch=0, **fields), history)


def test_where_nothing_was_measured_nothing_invites() -> None:
    assert found() == ()


@pytest.mark.parametrize(("score", "expected"), [(0.81, True), (1.0, True), (0.8, False), (0.0, False), (None, False)])
def test_healthy_gradients_are_an_opportunity(score: float | None, *, expected: bool) -> None:
    health = GradientHealth(score=score, global_norm=1.0, layers=4)
    assert ("healthy_gradients" in found(gradient_health=health)) is expected


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(0.0, True), (0.49, True), (0.5, False), (None, False), (math.nan, False)]
)
def test_a_low_accuracy_is_an_early_stage(accuracy: float | None, *, expected: bool) -> None:
    assert ("early_stage_flexibility" in found(validation_accuracy=accuracy)) is expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], True),
        ([0.0, 0.0, 0.0, 0.0, 0.0], True),
        ([1.0, 1.09, 1.0, 1.05, 1.0], True),
        ([9.0, 1.0, 1.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 1.0, 1.0], False),
        ([1.0, 1.0, 1.0, 1.0, 1.125], False),
        ([1.0, 1.0, None, 1.0, 1.0], False),
        ([1.0, 1.0, math.nan, 1.0, 1.0], False),
    ],
    ids=["same", "zero", "within", "older is out", "too few", "too far", "absent", "nan"],
)
def test_training_is_stable_when_the_last_five_losses_are_close(losses: list[float | None], *, expected: bool) -> None:
    *history, newest = [EpochSnapshot(epoch=0, validation_loss=loss) for loss in losses]
    assert ("stable_training" in opportunities(newest, history)) is expected
