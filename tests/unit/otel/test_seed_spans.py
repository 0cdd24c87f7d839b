"""A seed's life as one trace."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import StatusCode

from nissa.events import EventType, SpanIds, Stage
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent
    from tests.unit.otel.conftest import Kit, Life

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
EPOCH = SpanIds(0xE, 0xF)


def at(second: int) -> int:
    return START + second * SECOND


def grown(life: "Life") -> list["TelemetryEvent | list[TelemetryEvent]"]:
    return [
        life.germinate(0),
        life.advance(Stage.TRAINING, 2),
        life.advance(Stage.BLENDING, 5, alpha=0.4),
        life.advance(Stage.PROBATIONARY, 7, alpha=1.0),
        life.fossilize(9, improvement=0.025, epochs_total=6),
    ]


def test_a_life_is_a_root_with_a_child_per_stage(kit: "Kit", life: "Life") -> None:
    kit.emit(*grown(life))
    root = kit.span("seed")
    assert root.parent is None
    assert (root.start_time, root.end_time) == (at(0), at(9))
    assert root.context is not None
    assert (root.context.trace_id, root.context.span_id) == (life.seed.ids.trace_id, life.seed.ids.span_id)
    stages = [span for span in kit.spans() if span.name != "seed"]
    assert [(span.name, span.start_time, span.end_time) for span in stages] == [
        ("seed.germinated", at(0), at(2)),
        ("seed.training", at(2), at(5)),
        ("seed.blending", at(5), at(7)),
        ("seed.probationary", at(7), at(9)),
        ("seed.fossilized", at(9), at(9)),
    ]
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == life.seed.ids.span_id
        assert span.context is not None
        assert span.context.trace_id == life.seed.ids.trace_id
    assert len({span.context.span_id for span in kit.spans() if span.context}) == 6


def test_the_root_says_how_the_life_went(kit: "Kit", life: "Life") -> None:
    kit.emit(*grown(life))
    said = kit.span("seed").attributes
    assert said is not None
    assert dict(said) == {
        attr.RUN_ID: "run-1",
        attr.SEED_ID: "s1",
        attr.SEED_SLOT: "r0c1",
        attr.BLUEPRINT_ID: "conv",
        attr.SEED_STAGE: "fossilized",
        attr.SEED_PARAMETERS: 4800,
        attr.SEED_ATTEMPT: 0,
        attr.SEED_OUTCOME: "fossilized",
        attr.SEED_IMPROVEMENT: 0.025,
        attr.SEED_EPOCHS: 6,
        attr.SEED_ALPHA: 1.0,
    }
    assert kit.span("seed").status.status_code is StatusCode.UNSET


def test_a_culled_seed_says_why(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.cull(3, "no improvement", improvement=-0.003))
    root = kit.span("seed")
    assert root.attributes is not None
    assert root.attributes[attr.SEED_OUTCOME] == "culled"
    assert root.attributes[attr.SEED_CULL_REASON] == "no improvement"
    assert root.attributes[attr.SEED_IMPROVEMENT] == -0.003
    assert (root.end_time, kit.span("seed.culled").end_time) == (at(3), at(3))


def test_what_nobody_measured_is_absent(kit: "Kit", make_life: Callable[..., "Life"]) -> None:
    life = make_life(blueprint=None)
    kit.emit(life.germinate(0), life.cull(1))
    said = kit.span("seed").attributes or {}
    for name in (attr.BLUEPRINT_ID, attr.SEED_IMPROVEMENT, attr.SEED_CULL_REASON, attr.SEED_ALPHA, attr.ENV_ID):
        assert name not in said


def test_a_long_span_is_shown_when_it_starts(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(4))
    assert kit.spans() == []
    twin = kit.span("seed.started")
    assert (twin.start_time, twin.end_time) == (at(4), at(4))
    assert twin.parent is not None
    assert twin.context is not None
    assert twin.parent.span_id == life.seed.ids.span_id
    assert twin.context.span_id != life.seed.ids.span_id
    assert twin.attributes is not None
    assert twin.attributes[attr.SPAN_PENDING] is True
    assert kit.span("seed.germinated.started").attributes is not None


def test_the_stage_that_ends_a_life_needs_no_announcement(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.cull(1))
    assert kit.spans("seed.culled.started") == []


def test_announcements_can_be_switched_off(make_kit: Callable[..., "Kit"], life: "Life") -> None:
    kit = make_kit(settings={"spans": {"started": False}})
    kit.emit(life.germinate(4))
    assert kit.exporter.get_finished_spans() == ()


def test_spans_link_to_the_epoch_that_is_open(
    kit: "Kit", life: "Life", epoch_event: Callable[..., "TelemetryEvent"]
) -> None:
    kit.emit(life.germinate(0), epoch_event(EventType.EPOCH_STARTED, 1, EPOCH), life.advance(Stage.TRAINING, 2))
    kit.emit(epoch_event(EventType.EPOCH_COMPLETED, 3, EPOCH), life.advance(Stage.BLENDING, 4), life.cull(5))
    linked = {span.name: [link.context.span_id for link in span.links] for span in kit.spans()}
    assert linked["seed.training"] == [EPOCH.span_id]
    assert linked["seed.germinated"] == linked["seed.blending"] == linked["seed"] == []


def test_a_gate_is_an_event_on_the_stage_and_an_event_in_the_log(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.gate(1, passed=False, failed=["gain_0.10%"], score=0.2, checks_passed=["ready"]))
    kit.emit(life.advance(Stage.TRAINING, 2))
    (event,) = kit.span("seed.germinated").events
    assert event.name == "nissa.seed.gate"
    assert event.timestamp == at(1)
    told = {
        attr.GATE_NAME: "G2",
        attr.GATE_PASSED: False,
        attr.GATE_SCORE: 0.2,
        attr.GATE_CHECKS_PASSED: ("ready",),
        attr.GATE_CHECKS_FAILED: ("gain_0.10%",),
        attr.GATE_MESSAGE: "not yet",
    }
    assert dict(event.attributes or {}) == told
    (log,) = kit.logs("nissa.seed.gate")
    record = log.log_record
    assert record.body == "not yet"
    assert record.timestamp == record.observed_timestamp == at(1)
    assert record.attributes is not None
    assert told.items() <= dict(record.attributes).items()
    stage = kit.span("seed.germinated").context
    assert stage is not None
    assert (record.trace_id, record.span_id) == (stage.trace_id, stage.span_id)


def test_a_gate_is_a_span_too_with_each_failed_check_by_its_name(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.advance(Stage.TRAINING, 1))
    kit.emit(replace(life.gate(2, passed=False, failed=["gain_0.10%", "age"], score=0.2), epoch=7))
    gate = kit.span("gate")  # while the stage goes on: a killed process leaves it behind
    assert kit.spans("seed.training") == []
    assert (gate.start_time, gate.end_time) == (at(2), at(2))
    told = {attr.GATE_NAME: "G2", attr.GATE_PASSED: False, attr.SEED_STAGE: "training", attr.EPOCH: 7}
    assert told.items() <= dict(gate.attributes or {}).items()
    assert [(event.name, event.timestamp, dict(event.attributes or {})) for event in gate.events] == [
        ("nissa.seed.gate.failed_check", at(2), {attr.GATE_CHECK: "gain"}),
        ("nissa.seed.gate.failed_check", at(2), {attr.GATE_CHECK: "age"}),
    ]
    kit.emit(life.cull(3))
    stage = kit.span("seed.training").context
    assert stage is not None
    assert gate.parent is not None
    assert (gate.parent.trace_id, gate.parent.span_id) == (stage.trace_id, stage.span_id)


def test_a_stage_says_in_which_epoch_it_began(
    kit: "Kit", life: "Life", epoch_event: Callable[..., "TelemetryEvent"]
) -> None:
    kit.emit(life.germinate(0), replace(life.advance(Stage.TRAINING, 1), epoch=0))
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 2, EPOCH), life.advance(Stage.BLENDING, 3))
    kit.emit(epoch_event(EventType.EPOCH_COMPLETED, 4, EPOCH), life.advance(Stage.PROBATIONARY, 5), life.cull(6))
    said = {span.name: (span.attributes or {}).get(attr.EPOCH) for span in kit.spans() if span.name.startswith("seed.")}
    assert said.pop("seed.germinated") is said.pop("seed.probationary") is said.pop("seed.culled") is None
    assert said == {"seed.training": 0, "seed.blending": 3}


def test_a_refused_transition_is_an_event_on_the_stage(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.refuse(1), life.advance(Stage.TRAINING, 2))
    (event,) = kit.span("seed.germinated").events
    assert event.name == "nissa.seed.refused"
    assert event.attributes is not None
    assert "not allowed" in str(event.attributes[attr.TRANSITION_REFUSED])
    assert event.attributes[attr.SEED_TO] == "fossilized"
    (log,) = kit.logs("nissa.seed.refused")
    assert log.log_record.severity_text == "WARN"
    assert log.log_record.body == "GERMINATED -> FOSSILIZED is not allowed"
    assert kit.logs("nissa.seed.stage")[-1].log_record.timestamp == at(2)


def test_an_isolation_violation_is_an_event_with_its_count(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0))
    life.seed = replace(life.seed, isolation_violations=2)
    kit.emit(life.event(EventType.ISOLATION_VIOLATION, 1, message="host moved"), life.cull(2))
    (event,) = kit.span("seed.germinated").events
    assert event.name == "nissa.seed.isolation_violation"
    assert event.attributes == {attr.SEED_ISOLATION_VIOLATIONS: 2, attr.EVENT_MESSAGE: "host moved"}
    assert (kit.span("seed").attributes or {})[attr.SEED_ISOLATION_VIOLATIONS] == 2


def test_a_seed_that_was_adopted_says_so(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0, adopted=True), life.cull(1))
    assert (kit.span("seed").attributes or {})[attr.SEED_ADOPTED] is True


def test_a_resumed_seed_goes_on_in_the_same_trace_below_its_first_root(kit: "Kit", life: "Life") -> None:
    first = life.seed.ids
    kit.emit(life.resume(5), life.advance(Stage.TRAINING, 6), life.cull(7))
    root = kit.span("seed")
    assert root.context is not None
    assert root.parent is not None
    assert root.context.trace_id == first.trace_id
    assert root.context.span_id == life.seed.ids.span_id != first.span_id
    assert root.parent.span_id == first.span_id
    assert (root.attributes or {})[attr.SEED_ATTEMPT] == 1
    stage = kit.span("seed.training").parent
    assert stage is not None
    assert stage.span_id == life.seed.ids.span_id


def test_seeds_of_one_name_in_two_environments_do_not_mix(kit: "Kit", make_life: Callable[..., "Life"]) -> None:
    lives = [make_life("s1", env_id=env) for env in ("0", "1")]
    kit.emit(*(life.germinate(0) for life in lives))
    kit.emit(lives[0].advance(Stage.TRAINING, 1), lives[0].cull(2), lives[1].advance(Stage.TRAINING, 3))
    kit.emit(lives[1].advance(Stage.BLENDING, 4))
    (root,) = kit.spans("seed")
    assert (root.attributes or {})[attr.ENV_ID] == "0"
    found = {
        (span.attributes or {})[attr.ENV_ID]: (span.start_time, span.end_time) for span in kit.spans("seed.training")
    }
    assert found == {"0": (at(1), at(2)), "1": (at(3), at(4))}
    assert len({span.context.trace_id for span in kit.spans() if span.context}) == 2


@pytest.mark.parametrize("kind", [EventType.SEED_STAGE_CHANGED, EventType.SEED_CULLED])
def test_events_of_seeds_that_nobody_knows_open_no_span(kit: "Kit", life: "Life", kind: EventType) -> None:
    kit.emit(replace(life.event(kind, 0, {"to": "culled"}), seed=None))
    assert kit.exporter.get_finished_spans() == ()
