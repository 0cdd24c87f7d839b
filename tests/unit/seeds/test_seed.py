"""The handle that users hold."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nissa import EventType, GateResult, InvalidValueError, Seed, Severity, Stage, TelemetryEvent
from nissa.hub.normalize import own_event
from nissa.hub.plain_data import PayloadLimits
from nissa.seeds.checkpoint import restore
from nissa.testing import FakeClock
from tests.unit.seeds.conftest import Told

NewSeed = Callable[..., Seed]


@pytest.fixture
def sent() -> list[TelemetryEvent]:
    """What the handles sent, before the table saw it."""
    return []


@pytest.fixture
def germinate(told: Told, sent: list[TelemetryEvent], nissa_clock: FakeClock) -> NewSeed:
    def send(event: TelemetryEvent, *, plain: bool) -> None:
        bounded = own_event(event, PayloadLimits())  # as a run does
        assert bounded is event or not plain
        event = bounded
        sent.append(event)
        told.seen.extend(told.table.apply(event))

    def refuse(call: str, reason: str) -> None:
        raise InvalidValueError(f"{call}: {reason}")

    def new(seed_id: str = "s", **given: Any) -> Seed:
        facts = {"env_id": "1", "slot_id": "r0c0", "blueprint_id": "conv", "parameters": 48, **given}
        told.germinate(seed_id, **facts)
        record = told.table.slots.get((facts["env_id"], seed_id))
        assert record is not None
        return Seed(record, told.table.slots, send, clock=nissa_clock, features=lambda _: (0.0,), refuse=refuse)

    return new


def test_it_says_what_is_known_of_the_seed(germinate: NewSeed, told: Told) -> None:
    seed = germinate()
    state = told.state(env_id="1")

    assert (seed.seed_id, seed.blueprint, seed.slot, seed.parameters) == ("s", "conv", "r0c0", 48)
    assert (seed.stage, seed.alpha, seed.improvement) == (Stage.GERMINATED, None, None)
    assert seed.ids == state.ids
    assert seed.trace_id == f"{state.ids.trace_id:032x}"
    assert seed.history == (("germinated", state.germinated_at),)
    assert repr(seed) == "<Seed 's' conv at r0c0: germinated>"


def test_its_text_shows_what_is_not_known(germinate: NewSeed) -> None:
    assert repr(germinate(blueprint_id=None, slot_id=None)) == "<Seed 's' ? at ?: germinated>"


def test_advancing_sends_a_stage_change_of_now(
    germinate: NewSeed, sent: list[TelemetryEvent], nissa_clock: FakeClock
) -> None:
    seed = germinate()
    nissa_clock.advance(5)
    seed.advance("Training", alpha=0.25)

    (event,) = sent
    assert event.event_type == EventType.SEED_STAGE_CHANGED
    assert (event.seed_id, event.env_id, event.slot_id) == ("s", "1", "r0c0")
    assert event.time_unix_nano == nissa_clock()
    assert event.data == {"from": "germinated", "to": "training", "alpha": 0.25}
    assert (seed.stage, seed.alpha) == (Stage.TRAINING, 0.25)
    assert seed.history[-1] == ("training", nissa_clock())


def test_a_stage_that_does_not_exist_is_an_error_with_near_misses(germinate: NewSeed) -> None:
    with pytest.raises(InvalidValueError, match=r"advance\(\): .*Did you mean 'TRAINING'"):
        germinate().advance("trainign")


def test_advancing_illegally_is_refused_and_changes_nothing(germinate: NewSeed, told: Told) -> None:
    seed = germinate()
    seed.advance(Stage.BLENDING, alpha=0.5)

    assert told.seen[-1].refused
    assert (seed.stage, seed.alpha) == (Stage.GERMINATED, None)


@pytest.mark.parametrize(
    ("stage", "kind"), [(Stage.FOSSILIZED, EventType.SEED_FOSSILIZED), (Stage.CULLED, EventType.SEED_CULLED)]
)
def test_advancing_to_an_end_ends_the_life(
    germinate: NewSeed, told: Told, sent: list[TelemetryEvent], stage: Stage, kind: EventType
) -> None:
    seed = germinate()
    for before in (Stage.TRAINING, Stage.BLENDING, Stage.PROBATIONARY):
        seed.advance(before)
    seed.advance(stage, alpha=1.0)

    assert sent[-1].event_type == kind
    assert (seed.stage, seed.alpha) == (stage, 1.0)
    assert told.transitions()[-1] == ("probationary", stage.label)


def test_a_gate_is_told_with_its_checks(germinate: NewSeed, sent: list[TelemetryEvent], told: Told) -> None:
    seed = germinate()
    seed.gate(GateResult("G2", passed=False, score=0.0, checks_failed=("improvement",), message="not yet"))

    (event,) = sent
    assert event.event_type == EventType.SEED_GATE_EVALUATED
    assert event.message == "not yet"
    assert event.data == {
        "gate": "G2",
        "passed": False,
        "score": 0.0,
        "checks_passed": [],
        "checks_failed": ["improvement"],
    }
    assert told.seen[-1].seed == told.state(env_id="1")


def test_a_gate_without_a_score_has_none(germinate: NewSeed, sent: list[TelemetryEvent]) -> None:
    germinate().gate(GateResult("G0", passed=True))

    assert "score" not in sent[0].data


def test_alpha_is_noted_without_an_event(germinate: NewSeed, sent: list[TelemetryEvent], told: Told) -> None:
    seed = germinate()
    seed.set_alpha(0)

    assert sent == []
    assert seed.alpha == told.state(env_id="1").alpha == 0.0


def test_an_isolation_violation_is_a_warning_that_is_counted(
    germinate: NewSeed, sent: list[TelemetryEvent], told: Told
) -> None:
    germinate().isolation_violation("the host moved")

    assert (sent[0].event_type, sent[0].severity) == (EventType.ISOLATION_VIOLATION, Severity.WARNING)
    assert sent[0].message == "the host moved"
    assert told.state(env_id="1").isolation_violations == 1


def test_fossilizing_a_blended_seed_passes_its_probation(germinate: NewSeed, told: Told) -> None:
    seed = germinate()
    seed.advance(Stage.TRAINING)
    seed.advance(Stage.BLENDING)
    seed.fossilize(improvement=0.025)

    assert (seed.stage, seed.improvement) == (Stage.FOSSILIZED, 0.025)
    assert told.transitions()[-2:] == [("blending", "probationary"), ("probationary", "fossilized")]
    assert told.seen[-1].data == {"improvement": 0.025, "parameters": 48}


def test_culling_says_why(germinate: NewSeed, told: Told) -> None:
    seed = germinate()
    seed.cull(reason="no improvement", improvement=0.0)

    assert (seed.stage, seed.improvement) == (Stage.CULLED, 0.0)
    assert told.seen[-1].data == {"reason": "no improvement", "improvement": 0.0}


def test_an_end_without_a_measurement_leaves_the_improvement_absent(germinate: NewSeed) -> None:
    seed = germinate()
    seed.cull(reason=None)

    assert seed.improvement is None


def test_numpy_s_numbers_and_tensors_on_the_host_are_numbers(germinate: NewSeed, sent: list[TelemetryEvent]) -> None:
    first, second = germinate("a"), germinate("b")
    first.cull(reason="late", improvement=np.float32(0.5))  # type: ignore[arg-type]  # as callers do
    second.cull(reason="late", improvement=torch.tensor(0.25))  # type: ignore[arg-type]  # as callers do

    assert (first.improvement, second.improvement) == (0.5, 0.25)
    assert [event.data["improvement"] for event in sent] == [0.5, 0.25]


def test_ending_twice_is_refused(germinate: NewSeed, told: Told) -> None:
    seed = germinate()
    seed.cull(reason="late")
    seed.cull(reason="later")

    assert told.table.refusals == 1
    assert told.transitions() == [("germinated", "culled")]


def test_its_state_continues_its_trace(germinate: NewSeed) -> None:
    seed = germinate()
    resumed = restore(seed.state_dict())

    assert f"{resumed.ids.trace_id:032x}" == seed.trace_id
    assert resumed.attempt == 1


CALLS: list[Callable[[Seed], None]] = [
    lambda seed: seed.advance(Stage.TRAINING),
    lambda seed: seed.advance(Stage.CULLED),
    lambda seed: seed.fossilize(),
    lambda seed: seed.cull(reason="late"),
    lambda seed: seed.gate(GateResult("G1", passed=True)),
    lambda seed: seed.isolation_violation(),
]


@pytest.mark.parametrize("call", CALLS)
def test_the_handle_of_an_earlier_life_cannot_touch_a_later_one(
    germinate: NewSeed, told: Told, call: Callable[[Seed], None]
) -> None:
    stale = germinate()
    stale.cull(reason="late")
    fresh = germinate()
    before = told.state(env_id="1")
    call(stale)
    stale.set_alpha(0.9)

    assert told.seen[-1].refused == "Seed 's' has a later life of the same name; use its handle."
    assert told.state(env_id="1") == before
    assert (fresh.stage, stale.stage) == (Stage.GERMINATED, Stage.CULLED)
    assert stale.alpha is None
    assert told.table.refusals == 1
