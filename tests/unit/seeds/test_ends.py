"""However a producer signals the end of a life, backends see one event of it, with all its details."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nissa import EventType, Stage, TelemetryEvent
from nissa.seeds.pending_ends import MOST_PENDING, PATIENCE
from nissa.seeds.stages import ALIVE, END_OF
from tests.unit.seeds.conftest import Told

G, T, B, P, F, C = (
    Stage.GERMINATED,
    Stage.TRAINING,
    Stage.BLENDING,
    Stage.PROBATIONARY,
    Stage.FOSSILIZED,
    Stage.CULLED,
)
ENDS = [(F, EventType.SEED_FOSSILIZED), (C, EventType.SEED_CULLED)]


def ends(told: Told) -> list[TelemetryEvent]:
    return [event for event in told.seen if event.event_type in END_OF.values() and event.refused is None]


def grown(told: Told, seed_id: str = "s", **given: Any) -> None:
    told.germinate(seed_id, **given)
    told.change(T, B, P, seed_id=seed_id, **given)


@pytest.mark.parametrize(("stage", "kind"), ENDS)
@pytest.mark.parametrize("order", ["change, end", "end, change", "change", "end", "change, change, end", "end, end"])
def test_every_order_of_signals_becomes_one_event_that_says_from_where_to_where(
    told: Told, stage: Stage, kind: EventType, order: str
) -> None:
    grown(told)
    for signal in order.split(", "):
        told.change(stage) if signal == "change" else told.tell(kind, improvement=0.5)
    told.tell(EventType.TRAINING_ENDED, None)
    (end,) = ends(told)
    assert (end.event_type, end.transition) == (kind, (P, stage))
    assert told.transitions()[-1] == ("probationary", stage.label)
    assert end.seed is not None
    assert end.seed.improvement == (0.5 if "end" in order else None)
    assert told.table.refusals == order.count("end, end")


def test_an_end_has_the_time_of_the_change_and_the_details_of_both_signals(told: Told) -> None:
    told.germinate(slot_id="a")
    told.change(C, slot_id="a", epoch=3, message="gone", alpha=0.25)
    changed = told.now
    (end,) = told.tell(EventType.SEED_CULLED, reason="slow", improvement=-0.5)
    assert end.time_unix_nano == changed
    assert (end.slot_id, end.epoch, end.message) == ("a", 3, "gone")
    assert end.data == {"alpha": 0.25, "reason": "slow", "improvement": -0.5}
    assert end.seed is not None
    assert (end.seed.stage_since, end.seed.alpha, end.seed.improvement) == (changed, 0.25, -0.5)


def test_a_seed_is_in_its_final_stage_while_its_end_is_held_back(told: Told) -> None:
    told.germinate()
    assert told.change(C) == []
    assert told.state().stage is C
    assert told.table.slots.alive() == []


LATER: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "the seed moves on": (EventType.SEED_STAGE_CHANGED, "s", {"to": "embargoed"}),
    "the seed germinates again": (EventType.SEED_GERMINATED, "s", {}),
    "a gate judges the seed": (EventType.SEED_GATE_EVALUATED, "s", {}),
    "the seed was not isolated": (EventType.ISOLATION_VIOLATION, "s", {}),
    "the slot has another seed": (EventType.SEED_GERMINATED, "t", {"slot_id": "a"}),
    "an epoch ends": (EventType.EPOCH_COMPLETED, None, {}),
    "an epoch begins": (EventType.EPOCH_STARTED, None, {}),
    "the run ends": (EventType.TRAINING_ENDED, None, {}),
    "the run ends, seen from an environment": (EventType.TRAINING_ENDED, None, {"env_id": None}),
}


@pytest.mark.parametrize("name", LATER)
def test_an_end_that_only_a_change_signals_is_reported_ahead_of_what_follows(told: Told, name: str) -> None:
    kind, seed_id, fields = LATER[name]
    told.germinate(env_id="0", slot_id="a", blueprint_id="conv")
    told.change(C, env_id="0", slot_id="a")
    at = told.now
    end, *rest = told.tell(kind, seed_id, **{"env_id": "0"} | fields)
    assert (end.event_type, end.time_unix_nano, end.transition) == (EventType.SEED_CULLED, at, (G, C))
    assert end.seed is not None
    assert (end.seed.blueprint_id, end.data) == ("conv", {})
    assert [event.event_type for event in rest] == [kind]


OTHERS: list[tuple[str, str | None, dict[str, Any]]] = [
    (EventType.SEED_GERMINATED, "t", {"slot_id": "b"}),
    (EventType.SEED_GERMINATED, "s", {"env_id": "1"}),
    (EventType.SEED_GERMINATED, "t", {"env_id": "1", "slot_id": "a"}),
    (EventType.EPOCH_COMPLETED, None, {"env_id": "1"}),
    (EventType.SEED_GATE_EVALUATED, "t", {"slot_id": "b"}),
    (EventType.SEED_STAGE_CHANGED, "s", {"to": "culled"}),
    (EventType.RED_FLAG_RAISED, None, {}),
    ("BATCH_DONE", None, {}),
]


def test_what_is_of_another_seed_slot_or_environment_does_not_come_between_two_signals(told: Told) -> None:
    told.germinate(env_id="0", slot_id="a")
    told.change(C, env_id="0", slot_id="a")
    for kind, seed_id, fields in OTHERS:
        told.tell(kind, seed_id, **{"env_id": "0"} | fields)
    assert ends(told) == []
    told.tell(EventType.SEED_CULLED, env_id="0", reason="slow")
    (end,) = ends(told)
    assert end.data == {"reason": "slow"}
    assert told.table.refusals == 0


def test_an_end_is_not_held_back_for_longer_than_a_second(told: Told) -> None:
    told.germinate(env_id="0")
    told.change(C, env_id="0")
    told.now += PATIENCE
    assert [event.event_type for event in told.tell("ANYTHING", None, env_id="1")] == [
        EventType.SEED_CULLED,
        "ANYTHING",
    ]


def test_ends_that_are_held_back_can_be_asked_for(told: Told) -> None:
    for seed_id in ("s", "t"):
        told.germinate(seed_id)
        told.change(C, seed_id=seed_id)
    assert told.table.release(told.now) == []
    assert [event.seed_id for event in told.table.release(told.now + PATIENCE - 1)] == ["s"]
    assert [event.seed_id for event in told.table.release()] == ["t"]
    assert told.table.release() == []


def test_ends_that_are_held_back_are_bounded(told: Told) -> None:
    for number in range(MOST_PENDING + 5):
        told.germinate(f"s{number}")
        told.change(C, seed_id=f"s{number}")
    assert [event.seed_id for event in ends(told)] == ["s0", "s1", "s2", "s3", "s4"]
    assert len(told.table.release()) == MOST_PENDING


def test_another_end_than_the_one_that_was_announced_is_refused(told: Told) -> None:
    grown(told)
    told.change(F)
    end, refused = told.tell(EventType.SEED_CULLED)
    assert (end.event_type, end.transition) == (EventType.SEED_FOSSILIZED, (P, F))
    assert refused.refused


def test_the_end_of_an_unknown_seed_is_passed_on_once(told: Told) -> None:
    for _ in range(2):
        told.tell(EventType.SEED_CULLED)
    assert told.change(C, **{"from": "training"}) == []
    assert len(ends(told)) == 1
    told.germinate()
    told.tell(EventType.SEED_CULLED)
    assert len(ends(told)) == 2


def test_every_event_of_a_seed_carries_it_before_and_after(told: Told) -> None:
    grown(told)
    told.tell(EventType.ISOLATION_VIOLATION)
    told.tell(EventType.SEED_GATE_EVALUATED, alpha=0.5)
    told.tell(EventType.SEED_FOSSILIZED)
    first, *rest = told.seen
    assert first.before is None
    assert [event.before for event in rest] == [event.seed for event in told.seen[:-1]]
    refused = told.change(T)[-1]
    assert (refused.before, refused.transition) == (None, None)


SIGNALS = st.lists(
    st.tuples(
        st.sampled_from(["0", "1"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(
            ["germinate", "grow", "change F", "change C", "end F", "end C", "cool", "epoch", "gate", "late"]
        ),
    ),
    max_size=60,
)


def signal(told: Told, env: str, seed: str, what: str) -> None:
    told.now += PATIENCE if what == "late" else 0
    about = {"env_id": env, "slot_id": seed}
    record = told.table.slots.get((env, seed))
    stage = None if record is None else record.stage
    if what == "germinate":
        told.tell(EventType.SEED_GERMINATED, seed, **about)
    elif what == "epoch":
        told.tell(EventType.EPOCH_COMPLETED, None, env_id=env)
    elif what == "gate":
        told.tell(EventType.SEED_GATE_EVALUATED, seed, gate="G", passed=True, **about)
    elif what == "grow" and stage in ALIVE:
        told.change({G: T, T: B, B: P, P: B}[stage], seed_id=seed, **about)
    elif what == "cool" and stage is C:
        told.change(Stage.EMBARGOED, seed_id=seed, **about)
    elif what.startswith("change"):
        told.change(F if what.endswith("F") else C, seed_id=seed, **about)
    elif what.startswith("end"):
        told.tell(EventType.SEED_FOSSILIZED if what.endswith("F") else EventType.SEED_CULLED, seed, **about)


@settings(max_examples=200)
@given(SIGNALS)
def test_any_interleaving_of_signals_gives_one_end_per_life_and_transitions_without_gaps(
    signals: list[tuple[str, str, str]],
) -> None:
    told = Told()
    for each in signals:
        signal(told, *each)
    open_lives = {record.ids for record in told.table.slots.alive()}
    told.tell(EventType.TRAINING_ENDED, None)
    accepted = [event for event in told.seen if event.refused is None and event.seed is not None]
    stages: dict[Any, Stage] = {}
    ended: list[Any] = []
    for event in accepted:
        assert event.seed is not None
        if event.event_type == EventType.SEED_GERMINATED:
            assert event.seed.ids not in stages
        elif event.transition is not None:
            assert event.transition[0] is stages[event.seed.ids]  # nothing happened in between
        stages[event.seed.ids] = event.seed.stage
        if event.event_type in END_OF.values():
            ended.append(event.seed.ids)
    assert sorted(map(str, ended)) == sorted(map(str, stages.keys() - open_lives))
    assert all(stages[ids] in ALIVE for ids in open_lives)
    assert len({event.event_id for event in told.seen}) == len(told.seen)
