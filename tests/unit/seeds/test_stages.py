from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import Stage
from nissa.seeds.stages import ALIVE, ENDED, TRANSITIONS, mermaid, path, refusal
from tests.cases import for_each

# Written out from the design, not from the table.
ALLOWED = {
    # Forward in order; SHADOWING may be skipped.
    ("UNKNOWN", "DORMANT"),
    ("DORMANT", "GERMINATED"),
    ("GERMINATED", "TRAINING"),
    ("TRAINING", "BLENDING"),
    ("BLENDING", "SHADOWING"),
    ("SHADOWING", "PROBATIONARY"),
    ("BLENDING", "PROBATIONARY"),
    ("PROBATIONARY", "FOSSILIZED"),
    # The one way back.
    ("PROBATIONARY", "BLENDING"),
    # A cull is possible until the fate is decided.
    ("GERMINATED", "CULLED"),
    ("TRAINING", "CULLED"),
    ("BLENDING", "CULLED"),
    ("SHADOWING", "CULLED"),
    ("PROBATIONARY", "CULLED"),
    # Then the slot cools down.
    ("CULLED", "EMBARGOED"),
    ("EMBARGOED", "RESETTING"),
    ("RESETTING", "DORMANT"),
}
IMPLIED = {("BLENDING", "FOSSILIZED"), ("SHADOWING", "FOSSILIZED")}
PAIRS = list(product(Stage, Stage))


@for_each("before, after", PAIRS)
def test_exactly_the_transitions_of_the_design_are_allowed(before: Stage, after: Stage) -> None:
    names = (before.name, after.name)

    assert (after in TRANSITIONS[before]) == (names in ALLOWED)
    assert bool(path(before, after)) == (names in ALLOWED | IMPLIED)


def test_the_table_knows_every_stage_and_names_no_other_pair() -> None:
    assert set(TRANSITIONS) == set(Stage)
    assert {(before.name, after.name) for before, afters in TRANSITIONS.items() for after in afters} == ALLOWED


def test_a_fossilized_seed_stays_one() -> None:
    assert TRANSITIONS[Stage.FOSSILIZED] == ()
    assert all(not path(Stage.FOSSILIZED, stage) for stage in Stage)


@pytest.mark.parametrize("before", [Stage.BLENDING, Stage.SHADOWING])
def test_making_a_blended_seed_permanent_implies_its_probation(before: Stage) -> None:
    assert path(before, Stage.FOSSILIZED) == (Stage.PROBATIONARY, Stage.FOSSILIZED)


def test_a_direct_way_has_one_step() -> None:
    assert path(Stage.GERMINATED, Stage.TRAINING) == (Stage.TRAINING,)
    assert path(Stage.PROBATIONARY, Stage.FOSSILIZED) == (Stage.FOSSILIZED,)


@given(start=st.sampled_from(Stage), wishes=st.lists(st.sampled_from(Stage), max_size=30))
def test_whatever_is_asked_for_a_seed_only_ever_takes_allowed_steps(start: Stage, wishes: list[Stage]) -> None:
    stage, visited = start, [start]
    for wish in wishes:
        steps = path(stage, wish)
        if steps:
            assert steps[-1] is wish
            visited.extend(steps)
            stage = wish

    assert all((before.name, after.name) in ALLOWED for before, after in pairwise(visited))
    if Stage.FOSSILIZED in visited:
        assert visited[-1] is Stage.FOSSILIZED


def test_alive_are_the_stages_that_can_still_be_culled_and_ended_those_behind_the_decision() -> None:
    assert {stage for stage in Stage if (stage.name, "CULLED") in ALLOWED} == ALIVE
    assert {Stage.FOSSILIZED, Stage.CULLED, Stage.EMBARGOED, Stage.RESETTING} == ENDED


@for_each("before", Stage)
def test_a_refusal_names_the_legal_stages_and_no_other(before: Stage) -> None:
    text = refusal(before, Stage.UNKNOWN)
    legal = text.split("the legal stages are: ")[1].rstrip(".")

    assert text.startswith(f"{before.name} -> UNKNOWN is not allowed")
    if before is Stage.FOSSILIZED:
        assert legal == "none, it is terminal"
    else:
        assert set(legal.split(", ")) == {after for origin, after in ALLOWED if origin == before.name}


def test_the_drawing_has_an_arrow_per_transition() -> None:
    first, *arrows = mermaid().splitlines()

    assert first == "stateDiagram-v2"
    assert len(arrows) == len(ALLOWED)
    assert {tuple(arrow.split(" --> ")) for arrow in map(str.strip, arrows)} == ALLOWED
    assert mermaid().endswith("\n")
