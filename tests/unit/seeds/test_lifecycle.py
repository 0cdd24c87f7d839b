"""What the state table makes of the events of a life."""

from typing import Any

import pytest

from nissa import EventType, Severity, Stage, TelemetryEvent
from tests.unit.seeds.conftest import Told

G, T, B, S, P, F, C = (
    Stage.GERMINATED,
    Stage.TRAINING,
    Stage.BLENDING,
    Stage.SHADOWING,
    Stage.PROBATIONARY,
    Stage.FOSSILIZED,
    Stage.CULLED,
)
TO_PROBATION = [("germinated", "training"), ("training", "blending"), ("blending", "probationary")]


def test_a_life_begins_with_what_its_germination_says(told: Told) -> None:
    seed = told.germinate(env_id="3", slot_id="r0c1", blueprint_id="conv", parameters=48, alpha=0.0)

    assert (seed.seed_id, seed.env_id, seed.slot_id, seed.blueprint_id) == ("s", "3", "r0c1", "conv")
    assert (seed.parameters, seed.alpha, seed.improvement) == (48, 0.0, None)
    assert (seed.stage, seed.previous, seed.attempt) == (G, None, 0)
    assert (seed.germinated_at, seed.stage_since) == (told.now, told.now)
    assert (seed.epochs_total, seed.epochs_in_stage, seed.isolation_violations) == (0, 0, 0)
    assert seed.first_root == seed.ids.span_id != 0


def test_the_original_s_order_shows_each_transition_once(told: Told) -> None:
    told.germinate()
    told.change(T, B, S, P, F)
    told.tell(EventType.SEED_FOSSILIZED, improvement=0.02)

    assert told.transitions() == [
        ("germinated", "training"),
        ("training", "blending"),
        ("blending", "shadowing"),
        ("shadowing", "probationary"),
        ("probationary", "fossilized"),
    ]
    assert told.kinds()[-2:] == ["SEED_STAGE_CHANGED", "SEED_FOSSILIZED"]
    assert told.kinds().count("SEED_STAGE_CHANGED") == 4
    assert told.state().improvement == 0.02
    assert told.table.refusals == 0


@pytest.mark.parametrize(("kind", "end"), [(EventType.SEED_FOSSILIZED, F), (EventType.SEED_CULLED, C)])
@pytest.mark.parametrize("order", ["change first", "end first", "end only"])
def test_an_end_is_told_once_however_it_is_sent(told: Told, kind: EventType, end: Stage, order: str) -> None:
    told.germinate()
    told.change(T, B, P)
    if order == "change first":
        told.change(end)
    told.tell(kind, reason="late", improvement=0.1)
    if order == "end first":
        assert told.change(end) == []

    assert told.transitions() == [*TO_PROBATION, ("probationary", end.label)]
    assert told.kinds() == ["SEED_GERMINATED", *["SEED_STAGE_CHANGED"] * 3, kind]
    assert told.state().stage is end
    assert told.seen[-1].data == {"reason": "late", "improvement": 0.1}
    assert told.table.refusals == 0


def test_an_end_that_implies_a_probation_gives_it_its_own_time_and_an_identity_apart(told: Told) -> None:
    told.germinate()
    told.change(T, B)
    told.tell(EventType.SEED_FOSSILIZED, improvement=0.1)
    *_, probation, end = told.seen

    assert told.transitions()[-2:] == [("blending", "probationary"), ("probationary", "fossilized")]
    assert probation.time_unix_nano == end.time_unix_nano == told.now
    assert len({event.event_id for event in told.seen}) == len(told.seen)
    assert [event.seed.improvement for event in (probation, end) if event.seed] == [0.1, 0.1]
    assert [event.seed.stage for event in (probation, end) if event.seed] == [P, F]


def test_a_second_end_is_refused(told: Told) -> None:
    told.germinate()
    told.tell(EventType.SEED_CULLED, improvement=-0.1)
    (again,) = told.tell(EventType.SEED_CULLED, improvement=-0.9)

    assert again.refused == "CULLED -> CULLED is not allowed; from CULLED the legal stages are: EMBARGOED."
    assert told.state().improvement == -0.1
    assert told.transitions() == [("germinated", "culled")]


def test_a_culled_seed_cools_down_and_stays_in_its_trace(told: Told) -> None:
    first = told.germinate()
    told.tell(EventType.SEED_CULLED)
    told.change(Stage.EMBARGOED, Stage.RESETTING, Stage.DORMANT)

    assert told.state().ids == first.ids
    assert told.state().stage is Stage.DORMANT
    assert told.table.refusals == 0


def test_germinating_again_after_a_cull_is_a_new_life_with_a_new_trace(told: Told) -> None:
    first = told.germinate(blueprint_id="conv", alpha=0.5)
    told.tell(EventType.ISOLATION_VIOLATION)
    told.epochs(3)
    told.tell(EventType.SEED_CULLED, improvement=-0.1)
    second = told.germinate(blueprint_id="norm")

    assert second.ids.trace_id != first.ids.trace_id
    assert second.ids.span_id != first.ids.span_id
    assert (second.blueprint_id, second.alpha, second.improvement) == ("norm", None, None)
    assert (second.epochs_total, second.isolation_violations, second.stage) == (0, 0, G)
    told.tell(EventType.SEED_CULLED)  # and it has an end of its own
    assert told.table.refusals == 0


def test_germinating_a_living_seed_again_is_refused(told: Told) -> None:
    told.germinate(blueprint_id="conv")
    told.change(T)
    before = told.state()
    (refused,) = told.tell(EventType.SEED_GERMINATED, blueprint_id="other")

    assert refused.refused == "seed 's' is alive already, in TRAINING."
    assert refused.severity is Severity.WARNING
    assert refused.seed == told.state() == before


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (EventType.SEED_STAGE_CHANGED, {"to": "probationary"}),
        (EventType.SEED_STAGE_CHANGED, {"to": "training"}),
        (EventType.SEED_FOSSILIZED, {}),
        (EventType.SEED_GERMINATED, {}),
        (EventType.CHECKPOINT_LOADED, {"seed_state": {"version": 1}}),
    ],
)
def test_what_is_refused_changes_nothing_and_says_why(told: Told, kind: EventType, data: dict[str, Any]) -> None:
    told.germinate(blueprint_id="conv", parameters=1)
    told.change(T)
    before = told.state()
    (event,) = told.tell(kind, **data, alpha=0.9, improvement=0.9, epochs_total=99)

    assert event.refused
    assert event.event_type == kind
    assert event.severity is Severity.WARNING
    assert event.seed == told.state() == before
    assert told.table.refusals == 1


def test_an_illegal_change_names_the_legal_ones(told: Told) -> None:
    told.germinate()
    (event,) = told.change(B)

    assert (
        event.refused
        == "GERMINATED -> BLENDING is not allowed; from GERMINATED the legal stages are: TRAINING, CULLED."
    )
    assert told.transitions() == []


def test_the_change_says_where_the_seed_was_whatever_the_producer_thought(told: Told) -> None:
    told.germinate()
    (event,) = told.tell(EventType.SEED_STAGE_CHANGED, **{"from": "blending", "to": "training"}, alpha=0.1)

    assert event.data == {"from": "germinated", "to": "training", "alpha": 0.1}
    assert event.seed == told.state()
    assert (told.state().stage, told.state().previous, told.state().stage_since) == (T, G, told.now)


def test_a_seed_may_go_back_from_probation_to_blending(told: Told) -> None:
    told.germinate()
    told.change(T, B, P, B, P)
    told.tell(EventType.SEED_FOSSILIZED)

    assert told.table.refusals == 0
    assert told.transitions().count(("blending", "probationary")) == 2


def test_an_event_that_was_refused_before_passes_as_it_is_and_is_counted(told: Told) -> None:
    told.germinate()
    event = TelemetryEvent(EventType.SEED_CULLED, seed_id="s", refused="a stale handle")

    assert list(told.table.apply(event)) == [event]
    assert told.state().stage is G
    assert told.table.refusals == 1


def test_an_event_about_no_seed_passes_as_it_is(told: Told) -> None:
    for kind in ("MY_EVENT", EventType.TRAINING_STARTED, EventType.EPOCH_COMPLETED, EventType.CHECKPOINT_LOADED):
        event = TelemetryEvent(kind)
        assert list(told.table.apply(event)) == [event]


def test_snapshots_do_not_change_afterwards(told: Told) -> None:
    first = told.germinate()
    told.change(T)
    told.epochs(2)

    assert (first.stage, first.epochs_total) == (G, 0)
