"""What blending brought: the change of validation accuracy since a seed began to blend."""

import math

import pytest

from nissa import EventType, Stage
from nissa.seeds.checkpoint import restore, state_dict
from tests.unit.seeds.conftest import Told

T, B, P, F = Stage.TRAINING, Stage.BLENDING, Stage.PROBATIONARY, Stage.FOSSILIZED


def validate(told: Told, accuracy: float | None, env_id: str | None = None) -> None:
    told.now += 10
    told.table.validated(env_id, accuracy, told.now)


def test_it_is_counted_from_the_validation_before_the_seed_began_to_blend(told: Told) -> None:
    told.germinate()
    for accuracy in (0.5, 0.6):
        validate(told, accuracy)
        told.change(T) if accuracy == 0.5 else told.change(B)
    assert (told.state().accuracy, told.state().accuracy_before, told.state().accuracy_delta) == (0.6, 0.6, None)
    for accuracy, delta in ((0.7, 0.1), (0.5, -0.1)):
        validate(told, accuracy)
        assert told.state().accuracy_delta == pytest.approx(delta)
    told.change(P, B, P)  # blending again is not another beginning
    validate(told, 0.9)
    assert told.state().accuracy_delta == pytest.approx(0.3)
    (end,) = told.tell(EventType.SEED_FOSSILIZED)
    assert end.seed is not None
    assert end.seed.accuracy_delta == pytest.approx(0.3)


def test_an_event_that_arrives_late_is_compared_with_the_validation_before_it(told: Told) -> None:
    told.germinate()
    told.change(T)
    validate(told, 0.5)
    began = told.now + 1
    validate(told, 0.6)
    told.now = began - 1
    told.change(B)
    assert told.state().accuracy_before == 0.5
    assert told.state().accuracy_delta == pytest.approx(0.1)


@pytest.mark.parametrize("absent", [None, math.nan, math.inf])
def test_a_validation_without_an_accuracy_says_nothing(told: Told, absent: float | None) -> None:
    told.germinate()
    validate(told, 0.5)
    validate(told, absent)
    told.change(T, B)
    assert told.state().accuracy_before == 0.5
    validate(told, absent)
    assert (told.state().accuracy, told.state().accuracy_delta) == (None, None)
    validate(told, 0.75)
    assert told.state().accuracy_delta == 0.25


def test_without_a_validation_before_it_blended_nothing_is_known(told: Told) -> None:
    told.germinate()
    told.change(T, B)
    for accuracy in (0.5, 0.6):
        validate(told, accuracy)
    assert told.state().accuracy_delta is None


def test_environments_are_validated_apart(told: Told) -> None:
    for env in ("0", "1"):
        told.germinate(env_id=env)
        validate(told, 0.5, env)
        told.change(T, B, env_id=env)
    validate(told, 0.75, "0")
    assert [told.state(env_id=env).accuracy_delta for env in ("0", "1")] == [0.25, None]


def test_a_seed_that_was_adopted_while_it_blended_began_at_an_unknown_time(told: Told) -> None:
    validate(told, 0.5)
    told.tell(EventType.SEED_STAGE_CHANGED, **{"from": "blending", "to": "probationary"})
    told.tell(EventType.SEED_STAGE_CHANGED, "t", to="blending")
    validate(told, 0.75)
    assert [told.state(seed).accuracy_delta for seed in ("s", "t")] == [None, 0.25]


def test_a_resumed_seed_goes_on_from_the_same_accuracy(told: Told) -> None:
    told.germinate()
    validate(told, 0.5)
    told.change(T, B)
    validate(told, 0.6)
    state = state_dict(next(iter(told.table.slots)))
    other = Told()
    other.tell(EventType.CHECKPOINT_LOADED, seed_state=state)
    assert (other.state().accuracy_before, other.state().accuracy_delta) == (0.5, None)
    validate(other, 0.75)
    assert other.state().accuracy_delta == 0.25
    older = {key: value for key, value in state.items() if key != "accuracy_before"}
    assert restore(older).accuracy_before is None


def test_a_validation_reports_the_living_and_each_end_once(told: Told) -> None:
    told.germinate("a")
    told.germinate("b", env_id="1")
    told.germinate("c")
    told.tell(EventType.SEED_CULLED, "c")
    seen = [[seed.seed_id for seed in told.table.validated(env, None, told.now)] for env in (None, None, "1")]
    assert seen == [["a", "c"], ["a"], ["b"]]
