"""A seed's state goes into a checkpoint and comes back in another process."""

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from nissa import ConfigurationError, EventType, Stage
from nissa.events import SeedSnapshot
from nissa.seeds.checkpoint import restore, state_dict
from tests.unit.seeds.conftest import Told


@pytest.fixture
def state(told: Told) -> dict[str, Any]:
    """The state of a seed that has lived, through JSON as a checkpoint would take it."""
    told.germinate(env_id="0", slot_id="r0c0", blueprint_id="conv", parameters=48)
    told.epochs(2, "0")
    told.change(Stage.TRAINING, Stage.BLENDING, env_id="0", alpha=0.4, improvement=0.01)
    told.tell(EventType.ISOLATION_VIOLATION, env_id="0")
    told.epochs(1, "0")
    (record,) = told.table.slots
    loaded: dict[str, Any] = json.loads(json.dumps(state_dict(record)))
    return loaded


def resume(other: Told, state: object, **given: Any) -> SeedSnapshot:
    return other.snapshot(other.tell(EventType.CHECKPOINT_LOADED, seed_state=state, **{"env_id": "0", **given}))


def test_a_seed_comes_back_as_the_next_attempt_in_the_same_trace(told: Told, state: dict[str, Any]) -> None:
    before = told.state(env_id="0")
    after = restore(state).snapshot()

    assert after.ids.trace_id == before.ids.trace_id
    assert after.ids.span_id != before.ids.span_id
    assert after.first_root == before.first_root == before.ids.span_id
    assert (before.attempt, after.attempt) == (0, 1)
    assert replace(after, ids=before.ids, attempt=0) == before


def test_every_further_attempt_hangs_below_the_first_root(state: dict[str, Any]) -> None:
    first = restore(state)
    second = restore(json.loads(json.dumps(state_dict(first))))

    assert second.attempt == 2
    assert second.first_root == first.first_root
    assert len({first.first_root, first.ids.span_id, second.ids.span_id}) == 3
    assert second.history == first.history == [("germinated", 1_001), ("training", 1_004), ("blending", 1_005)]


def test_restoring_shares_nothing_with_the_state_and_leaves_it_alone(state: dict[str, Any]) -> None:
    before = json.dumps(state)
    restore(state).enter(Stage.CULLED, 9)

    assert json.dumps(state) == before


def test_an_improvement_that_is_not_a_number_survives(told: Told) -> None:
    told.germinate()
    told.change(Stage.TRAINING, improvement=math.nan)
    (record,) = told.table.slots
    back = restore(json.loads(json.dumps(state_dict(record))))

    assert back.improvement is not None
    assert math.isnan(back.improvement)


def test_a_resumed_seed_lives_on(state: dict[str, Any]) -> None:
    other = Told()
    resumed = resume(other, state)
    assert resumed == other.state(env_id="0")
    assert other.seen[-1].data == {"attempt": 1}

    other.epochs(1, "0")
    other.change(Stage.PROBATIONARY, env_id="0")
    other.tell(EventType.SEED_FOSSILIZED, env_id="0")
    assert other.state(env_id="0").epochs_total == 4
    assert other.table.refusals == 0


def test_a_living_seed_is_not_overwritten(told: Told, state: dict[str, Any]) -> None:
    before = told.state(env_id="0")
    resume(told, state)

    assert told.seen[-1].refused == "seed 's' is alive already, in BLENDING."
    assert told.state(env_id="0") == before


def test_a_dead_seed_s_earlier_state_can_be_resumed(told: Told, state: dict[str, Any]) -> None:
    told.tell(EventType.SEED_CULLED, env_id="0")
    resume(told, state)
    told.tell(EventType.SEED_CULLED, env_id="0")

    assert told.table.refusals == 0
    assert told.state(env_id="0").attempt == 1


@pytest.mark.parametrize("given", [{"env_id": "1"}, {"env_id": None}, {"seed_id": "other", "env_id": "0"}])
def test_a_state_is_not_taken_for_another_seed_s(state: dict[str, Any], given: dict[str, Any]) -> None:
    other = Told()
    (event,) = other.tell(EventType.CHECKPOINT_LOADED, seed_state=state, **given)

    assert event.refused == "the state is that of seed 's' of env '0'."
    assert list(other.table.slots) == []


def test_a_checkpoint_without_a_seed_state_is_none_of_the_table_s_business(told: Told) -> None:
    (event,) = told.tell(EventType.CHECKPOINT_LOADED, path="x.pt")

    assert (event.refused, event.seed) == (None, None)


_OPTIONAL = {"accuracy", "accuracy_before", "accuracy_delta"}
FIELDS = [name for name in (*SeedSnapshot.__dataclass_fields__, "history", "version") if name not in _OPTIONAL]


@pytest.mark.parametrize("name", FIELDS)
def test_a_state_that_lacks_anything_is_refused_with_a_hint(state: dict[str, Any], name: str) -> None:
    del state[name]

    with pytest.raises(ConfigurationError, match=r"seed state"):
        restore(state)


DAMAGED = [
    ("version", 2),
    ("version", "1"),
    ("seed_id", None),
    ("seed_id", ""),
    ("ids", None),
    ("ids", {}),
    ("ids", {"trace_id": "xyz"}),
    ("ids", {"trace_id": 5}),
    ("ids", {"trace_id": "0" * 32}),
    ("ids", {"trace_id": "f" * 33}),
    ("first_root", "0" * 16),
    ("first_root", "f" * 17),
    ("first_root", None),
    ("stage", "nowhere"),
    ("stage", None),
    ("previous", "nowhere"),
    ("history", None),
    ("history", [["training"]]),
    ("history", [["training", "soon"]]),
    ("attempt", "1"),
    ("attempt", None),
    ("attempt", 0.5),
    ("germinated_at", "today"),
    ("stage_since", None),
    ("epochs_total", "3"),
    ("epochs_total", True),
    ("epochs_in_stage", 1.5),
    ("isolation_violations", None),
]


@pytest.mark.parametrize(("name", "value"), DAMAGED, ids=repr)
def test_a_damaged_state_is_a_configuration_error(state: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"seed state"):
        restore({**state, name: value})


@pytest.mark.parametrize("nonsense", [None, [], "state", 5, {}])
def test_what_is_no_state_at_all_is_a_configuration_error(nonsense: object) -> None:
    with pytest.raises(ConfigurationError, match=r"pass what Seed\.state_dict\(\) returned"):
        restore(nonsense)


@pytest.mark.parametrize(("name", "value"), DAMAGED, ids=repr)
def test_a_damaged_state_in_an_event_is_refused_and_raises_nothing(
    state: dict[str, Any], name: str, value: object
) -> None:
    other = Told()
    (event,) = other.tell(EventType.CHECKPOINT_LOADED, seed_state={**state, name: value}, env_id="0")

    assert event.refused
    assert "seed state" in event.refused
    assert list(other.table.slots) == []


def test_restoring_draws_from_nobody_s_random_numbers(state: dict[str, Any]) -> None:
    before = random.getstate()
    restore(state)

    assert random.getstate() == before
