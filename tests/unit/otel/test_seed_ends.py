"""Lives that end otherwise than they should: interrupted, half told, dropped by a sampler."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from nissa.events import EventType, SpanIds, Stage, TelemetryEvent
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from tests.unit.otel.conftest import Kit, Life

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def at(second: int) -> int:
    return START + second * SECOND


def end(second: int, **data: str) -> TelemetryEvent:
    return TelemetryEvent(EventType.TRAINING_ENDED, data=dict(data), time_unix_nano=at(second))


def test_a_life_that_the_run_s_end_cuts_short_is_interrupted(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.advance(Stage.TRAINING, 1), end(5, error="KeyboardInterrupt"))
    root, stage = kit.span("seed"), kit.span("seed.training")
    assert (root.attributes or {})[attr.SEED_OUTCOME] == "interrupted"
    assert (root.attributes or {})[attr.SEED_STAGE] == "training"
    assert root.status.status_code is StatusCode.ERROR
    assert root.status.description == "KeyboardInterrupt"
    assert (root.end_time, stage.end_time) == (at(5), at(5))
    assert (stage.attributes or {})[attr.SEED_OUTCOME] == "interrupted"


def test_without_a_reason_it_is_the_run_that_ended(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), end(5))
    assert "before the seed's fate was decided" in (kit.span("seed").status.description or "")


def test_a_life_that_was_decided_is_not_interrupted(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.cull(1), end(5))
    (root,) = kit.spans("seed")
    assert root.end_time == at(1)
    assert root.status.status_code is StatusCode.UNSET


def test_an_end_is_found_among_the_changes_of_stage_too(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.cull(3, "slow"))
    (change,) = (each.log_record for each in kit.logs("nissa.seed.stage"))
    (culled,) = (each.log_record for each in kit.logs("nissa.event.seed_culled"))
    expected = {attr.SEED_FROM: "germinated", attr.SEED_TO: "culled", attr.EVENT_TYPE: "SEED_STAGE_CHANGED"}
    assert expected.items() <= dict(change.attributes or {}).items()
    assert (culled.attributes or {})["nissa.event.reason"] == "slow"
    assert change.timestamp == culled.timestamp == at(3)
    assert (change.trace_id, change.span_id) == (culled.trace_id, culled.span_id)


def test_the_slot_s_cooldown_shows_how_long_each_stage_took(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.cull(1), life.advance(Stage.EMBARGOED, 2))
    kit.emit(life.advance(Stage.RESETTING, 7), life.advance(Stage.DORMANT, 8))
    stages = {span.name: (span.start_time, span.end_time) for span in kit.spans()}
    assert stages["seed.embargoed"] == (at(2), at(7))
    assert stages["seed.resetting"] == (at(7), at(8))
    assert stages["seed.dormant"] == (at(8), at(8))
    assert stages["seed"] == (at(0), at(1))
    for name, began in (("seed.embargoed", 2), ("seed.resetting", 7)):
        twin = kit.span(name + ".started")
        assert (twin.start_time, twin.end_time) == (at(began), at(began))
    assert kit.spans("seed.dormant.started") == []
    for name in ("seed.embargoed", "seed.resetting", "seed.dormant"):
        parent = kit.span(name).parent
        assert parent is not None
        assert (parent.trace_id, parent.span_id) == (life.seed.ids.trace_id, life.seed.ids.span_id)


def test_a_new_life_of_the_same_name_ends_what_the_earlier_one_left_open(
    kit: "Kit", make_life: Callable[..., "Life"]
) -> None:
    first, second = make_life(), make_life()
    second.seed = replace(second.seed, ids=SpanIds(7, 8), first_root=8)
    kit.emit(first.germinate(0), first.cull(1), first.advance(Stage.EMBARGOED, 2), second.germinate(5))
    assert kit.span("seed.embargoed").end_time == at(5)
    third = make_life()
    third.seed = replace(third.seed, ids=SpanIds(9, 10), first_root=10)
    kit.emit(third.germinate(8))  # the end of the second was lost
    assert [span.end_time for span in kit.spans("seed")] == [at(1), at(8)]
    assert (kit.spans("seed")[-1].attributes or {})[attr.SEED_OUTCOME] == "interrupted"


def test_an_end_that_is_told_twice_counts_once(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.cull(1), life.event(EventType.SEED_CULLED, 4))
    assert [span.end_time for span in kit.spans("seed")] == [at(1)]


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), ParentBased(TraceIdRatioBased(0))])
def test_a_seed_that_the_sampler_drops_is_counted_and_leaves_no_orphan(
    make_kit: Callable[..., "Kit"], make_life: Callable[..., "Life"], sampler: object
) -> None:
    kit = make_kit(sampler=sampler)
    for env in ("0", "1"):
        life = make_life(env_id=env)
        kit.emit(life.germinate(0), life.gate(1, passed=True), life.cull(2), life.advance(Stage.EMBARGOED, 3))
        kit.emit(life.advance(Stage.RESETTING, 4), life.advance(Stage.DORMANT, 5))
    assert kit.exporter.get_finished_spans() == ()
    points = kit.points("nissa.seed.unsampled")
    assert [(dict(point.attributes), point.value) for point in points] == [
        ({attr.ENV_ID: "0"}, 1),
        ({attr.ENV_ID: "1"}, 1),
    ]


def test_the_log_of_a_dropped_seed_says_that_its_trace_was_dropped(
    make_kit: Callable[..., "Kit"], life: "Life"
) -> None:
    kit = make_kit(sampler=ALWAYS_OFF)
    kit.emit(life.germinate(0), life.cull(2))
    (record,) = [log.log_record for log in kit.logs("nissa.event.seed_culled")]
    assert record.trace_id == life.seed.ids.trace_id
    assert record.trace_flags is not None
    assert not record.trace_flags.sampled


def test_a_ratio_decides_per_life_and_keeps_lives_whole(
    make_kit: Callable[..., "Kit"], make_life: Callable[..., "Life"]
) -> None:
    kit = make_kit(sampler=ParentBased(TraceIdRatioBased(0.5)))
    for number in range(8):
        life = make_life(f"s{number}")
        ids = SpanIds((number % 2 * 2**63 + 2**62) | 1 << 100, number + 1)
        life.seed = replace(life.seed, ids=ids, first_root=ids.span_id)
        kit.emit(life.germinate(0), life.advance(Stage.TRAINING, 1), life.cull(2), life.advance(Stage.EMBARGOED, 3))
    kit.emit(end(4))
    names = sorted(span.name for span in kit.spans())
    kept = sorted(["seed", "seed.germinated", "seed.training", "seed.culled", "seed.embargoed"] * 4)
    assert names == kept
    (point,) = kit.points("nissa.seed.unsampled")
    assert point.value == 4


def test_what_is_remembered_of_dropped_seeds_is_bounded(
    make_kit: Callable[..., "Kit"], make_life: Callable[..., "Life"]
) -> None:
    kit = make_kit(sampler=ALWAYS_OFF, settings={"limits": {"max_seeds": 5}})
    for number in range(20):
        life = make_life(f"s{number}")
        kit.emit(life.germinate(0), life.cull(1))
    assert len(kit.backend._seeds._dropped) == 5
