"""What the table keeps about seeds beside their stage, and how it keeps them apart."""

import random

import pytest

from nissa import EventType, Stage
from tests.unit.seeds.conftest import Told

ENDED = (Stage.CULLED, Stage.EMBARGOED, Stage.RESETTING, Stage.FOSSILIZED)


def test_the_same_seed_and_slot_in_two_environments_are_two_seeds(told: Told) -> None:
    first = told.germinate(env_id="0", slot_id="r0c0", blueprint_id="conv")
    second = told.germinate(env_id="1", slot_id="r0c0", blueprint_id="norm")
    third = told.germinate(slot_id="r0c0")
    told.change(Stage.TRAINING, env_id="0")
    told.tell(EventType.SEED_CULLED, env_id="1")
    told.tell(EventType.ISOLATION_VIOLATION)

    assert len({first.ids.trace_id, second.ids.trace_id, third.ids.trace_id}) == 3
    assert [told.state(env_id=env).stage for env in ("0", "1", None)] == [
        Stage.TRAINING,
        Stage.CULLED,
        Stage.GERMINATED,
    ]
    assert [told.state(env_id=env).isolation_violations for env in ("0", "1", None)] == [0, 0, 1]
    assert told.table.refusals == 0


def test_epochs_are_counted_for_the_living_seeds_of_their_environment(told: Told) -> None:
    told.germinate(env_id="0")
    told.germinate("dead", env_id="0")
    told.germinate(env_id="1")
    told.epochs(2, "0")
    told.tell(EventType.SEED_CULLED, "dead", env_id="0")
    told.change(Stage.TRAINING, env_id="0")
    told.epochs(3, "0")
    told.epochs(1)

    here, dead, there = told.state(env_id="0"), told.state("dead", env_id="0"), told.state(env_id="1")
    assert (here.epochs_total, here.epochs_in_stage) == (5, 3)
    assert dead.epochs_total == 2
    assert there.epochs_total == 0


def test_a_producer_that_counted_more_epochs_is_believed_and_one_that_counted_fewer_is_not(told: Told) -> None:
    told.germinate()
    told.epochs(5)
    told.tell(EventType.SEED_GATE_EVALUATED, epochs_total=3)
    assert told.state().epochs_total == 5
    told.tell(EventType.SEED_CULLED, epochs_total=40)
    assert told.state().epochs_total == 40


def test_what_an_event_does_not_mention_stays(told: Told) -> None:
    told.germinate(blueprint_id="conv", parameters=10, alpha=0.0)
    told.change(Stage.TRAINING, alpha=0.5)
    told.change(Stage.BLENDING, improvement=0.0)
    told.tell(EventType.SEED_CULLED, blueprint_id="other", parameters=99)

    state = told.state()
    assert (state.blueprint_id, state.parameters) == ("conv", 10)
    assert (state.alpha, state.improvement) == (0.5, 0.0)


def test_what_was_never_measured_is_absent(told: Told) -> None:
    told.germinate()
    told.change(Stage.TRAINING, alpha=None, improvement="<Tensor ()>")
    told.change(Stage.BLENDING, alpha=True)

    assert told.state().alpha is None
    assert told.state().improvement is None


@pytest.mark.parametrize("nonsense", ["many", 4.5, True, None])
def test_parameters_that_are_no_count_are_absent_until_somebody_counts(told: Told, nonsense: object) -> None:
    told.germinate(parameters=nonsense, blueprint_id=7)
    assert told.state().parameters is None
    assert told.state().blueprint_id == "7"
    told.tell(EventType.SEED_CULLED, parameters=0)
    assert told.state().parameters == 0


def test_gates_are_passed_on_with_the_seed_as_it_is(told: Told) -> None:
    told.germinate()
    (event,) = told.tell(EventType.SEED_GATE_EVALUATED, gate="G2", passed=False, checks_failed=["improvement_0.1%"])

    assert event.seed == told.state()
    assert event.data == {"gate": "G2", "passed": False, "checks_failed": ["improvement_0.1%"]}
    assert told.state().stage is Stage.GERMINATED


def test_isolation_violations_are_counted_in_the_seed(told: Told) -> None:
    told.germinate()
    told.tell(EventType.ISOLATION_VIOLATION)
    (event,) = told.tell(EventType.ISOLATION_VIOLATION)

    assert event.seed == told.state()
    assert told.state().isolation_violations == 2


@pytest.mark.parametrize(
    "kind",
    [EventType.SEED_GATE_EVALUATED, EventType.ISOLATION_VIOLATION, EventType.SEED_CULLED, EventType.SEED_FOSSILIZED],
)
def test_an_event_of_a_seed_that_nobody_knows_passes_without_one(told: Told, kind: EventType) -> None:
    (event,) = told.tell(kind)

    assert event.seed is None
    assert event.refused is None
    assert list(told.table.slots) == []


def test_telemetry_that_is_attached_late_adopts_a_seed_where_it_is(told: Told) -> None:
    change = {"from": "training", "to": "blending"}
    adopted, changed = told.tell(EventType.SEED_STAGE_CHANGED, **change, env_id="1", slot_id="a", epoch=4, alpha=0.1)

    assert adopted.event_type == EventType.SEED_GERMINATED
    assert adopted.data == {"adopted": True}
    assert (adopted.seed_id, adopted.env_id, adopted.slot_id, adopted.epoch) == ("s", "1", "a", 4)
    assert adopted.time_unix_nano == changed.time_unix_nano == told.now
    assert adopted.event_id != changed.event_id
    assert adopted.seed is not None
    assert adopted.seed.stage is Stage.TRAINING
    assert changed.data == {**change, "alpha": 0.1}
    assert changed.seed == told.state(env_id="1")
    told.tell(EventType.SEED_CULLED, env_id="1")
    assert told.table.refusals == 0


@pytest.mark.parametrize("given", [{}, {"from": None}])
def test_a_seed_whose_past_nobody_tells_is_adopted_where_it_arrives(told: Told, given: dict[str, None]) -> None:
    (adopted,) = told.tell(EventType.SEED_STAGE_CHANGED, **given, to="blending")

    assert adopted.event_type == EventType.SEED_GERMINATED
    assert told.state().stage is Stage.BLENDING
    told.change(Stage.PROBATIONARY)
    assert told.table.refusals == 0


@pytest.mark.parametrize("stage", ENDED, ids=lambda stage: stage.name)
def test_a_slot_that_cools_down_is_no_seed_to_adopt(told: Told, stage: Stage) -> None:
    (event,) = told.tell(EventType.SEED_STAGE_CHANGED, **{"from": stage.label, "to": "dormant"})

    assert event.event_type == EventType.SEED_STAGE_CHANGED
    assert event.seed is None
    assert list(told.table.slots) == []


def test_an_adopted_seed_that_does_the_impossible_is_refused_like_any_other(told: Told) -> None:
    adopted, refused = told.tell(EventType.SEED_STAGE_CHANGED, **{"from": "training", "to": "fossilized"})

    assert adopted.seed is not None
    assert refused.refused
    assert told.state().stage is Stage.TRAINING


def test_seeds_are_listed_in_the_order_in_which_they_germinated(told: Told) -> None:
    for seed_id in ("a", "b", "c"):
        told.germinate(seed_id)
    told.tell(EventType.SEED_CULLED, "a")
    assert [record.seed_id for record in told.table.slots.alive()] == ["b", "c"]
    told.germinate("a")

    assert [record.seed_id for record in told.table.slots] == ["b", "c", "a"]
    assert [record.seed_id for record in told.table.slots.of("other")] == []


def test_the_history_of_a_seed_that_goes_back_and_forth_is_bounded(told: Told) -> None:
    told.germinate()
    told.change(Stage.TRAINING)
    told.change(*(Stage.BLENDING, Stage.PROBATIONARY) * 80)
    (record,) = told.table.slots

    assert len(record.history) == 100
    assert record.history[-1] == ("probationary", told.now)


def test_identities_are_drawn_from_nobody_s_random_numbers(told: Told) -> None:
    random.seed(5)
    state = random.getstate()
    first = told.germinate("a")
    assert random.getstate() == state
    random.seed(5)

    assert told.germinate("b").ids != first.ids
    assert 0 < first.ids.trace_id < 2**128
    assert 0 < first.ids.span_id < 2**64
