"""One trace per epoch."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode

from nissa.events import EventType, SpanIds, TelemetryEvent
from nissa.hub.measurements import StepMeasured, ValidationMeasured
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from tests.unit.otel.conftest import Kit

Epoch = Callable[..., TelemetryEvent]

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
IDS, LATER = SpanIds(0xE1, 0xF1), SpanIds(0xE2, 0xF2)


def at(second: float) -> int:
    return START + round(second * SECOND)


def step(second: float, ids: SpanIds | None = IDS, **fields: Any) -> StepMeasured:
    told: dict[str, Any] = {"env_id": None, "step": 7, "duration": 0.5, "loss": 0.25, "sampled": True} | fields
    return StepMeasured(time_unix_nano=at(second), epoch_ids=ids, **told)


def validation(second: float, ids: SpanIds | None = IDS) -> ValidationMeasured:
    return ValidationMeasured(
        env_id=None,
        epoch=3,
        started=at(second - 1),
        time_unix_nano=at(second),
        loss=0.5,
        accuracy=0.75,
        train_loss=None,
        train_accuracy=None,
        narrative="Training normally",
        red_flags={"plateau": True, "overfitting": False},
        epoch_ids=ids,
    )


def test_an_epoch_is_the_root_of_its_own_trace(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS))
    assert (kit.span("epoch.started").attributes or {})[attr.SPAN_PENDING] is True
    assert kit.spans() == []
    kit.emit(epoch_event(EventType.EPOCH_COMPLETED, 4, IDS))
    span = kit.span("epoch")
    assert span.parent is None
    assert span.context is not None
    assert (span.context.trace_id, span.context.span_id) == (IDS.trace_id, IDS.span_id)
    assert (span.start_time, span.end_time) == (at(0), at(4))
    assert dict(span.attributes or {}) == {attr.RUN_ID: "run-1", attr.EPOCH: 3}
    assert span.status.status_code is StatusCode.UNSET


def test_an_epoch_that_an_exception_ended_says_so(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS), epoch_event(EventType.EPOCH_COMPLETED, 1, IDS, error="Oops"))
    assert kit.span("epoch").status.status_code is StatusCode.ERROR
    assert kit.span("epoch").status.description == "Oops"


def test_an_epoch_that_was_left_open_ends_when_the_next_begins(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS), epoch_event(EventType.EPOCH_STARTED, 2, LATER))
    assert kit.span("epoch").end_time == at(2)


def test_the_run_s_end_interrupts_the_epoch_that_is_open(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS))
    kit.emit(TelemetryEvent(EventType.TRAINING_ENDED, time_unix_nano=at(3)))
    span = kit.span("epoch")
    assert (span.end_time, span.status.status_code) == (at(3), StatusCode.ERROR)
    assert "within the epoch" in (span.status.description or "")


def test_environments_have_epochs_of_their_own(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS, env_id="0"))
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 1, LATER, env_id="1"))
    kit.emit(epoch_event(EventType.EPOCH_COMPLETED, 2, IDS, env_id="0"))
    assert (kit.span("epoch").attributes or {})[attr.ENV_ID] == "0"


@pytest.mark.parametrize("when", ["within", "after"])
def test_a_sampled_step_is_a_child_that_began_with_the_step_before(kit: "Kit", epoch_event: Epoch, when: str) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS))
    if when == "after":  # its statistics came to the host when the next epoch was under way
        kit.emit(epoch_event(EventType.EPOCH_COMPLETED, 2, IDS), epoch_event(EventType.EPOCH_STARTED, 2, LATER))
    kit.backend.record(step(1.5))
    span = kit.span("step")
    assert (span.start_time, span.end_time) == (at(1), at(1.5))
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (IDS.trace_id, IDS.span_id)
    assert dict(span.attributes or {}) == {attr.RUN_ID: "run-1", attr.STEP: 7, attr.LOSS: 0.25}


@pytest.mark.parametrize("fields", [{"sampled": False}, {"duration": None}, {"ids": None}])
def test_steps_that_were_not_sampled_or_not_timed_have_no_span(kit: "Kit", fields: dict[str, Any]) -> None:
    kit.backend.record(step(1, **fields))
    assert kit.spans() == []


def test_step_spans_can_be_switched_off(make_kit: Callable[..., "Kit"]) -> None:
    kit = make_kit(settings={"spans": {"steps": False}})
    kit.backend.record(step(1))
    assert kit.spans() == []


def test_a_validation_carries_its_narrative_and_tells_it_as_an_event(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS))
    kit.backend.record(validation(3))
    span = kit.span("validation")
    assert (span.start_time, span.end_time) == (at(2), at(3))
    assert span.parent is not None
    assert span.context is not None
    assert span.parent.span_id == IDS.span_id
    said = {attr.LOSS: 0.5, attr.ACCURACY: 0.75, attr.NARRATIVE: "Training normally", attr.EPOCH: 3}
    assert dict(span.attributes or {}) == {attr.RUN_ID: "run-1"} | said
    (log,) = kit.logs("nissa.narrative")
    assert log.log_record.body == "Training normally"
    assert log.log_record.span_id == span.context.span_id
    assert (log.log_record.attributes or {})[attr.RED_FLAG_NAME] == ("plateau",)


def test_a_validation_outside_an_epoch_is_a_root(kit: "Kit") -> None:
    kit.backend.record(validation(3, None))
    assert kit.span("validation").parent is None


@pytest.mark.parametrize("when", ["within", "after"])
def test_a_red_flag_is_shown_in_the_epoch_of_what_raised_it(kit: "Kit", epoch_event: Epoch, when: str) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS))
    if when == "after":  # the step's loss came to the host when the next epoch was under way
        kit.emit(epoch_event(EventType.EPOCH_COMPLETED, 3, IDS), epoch_event(EventType.EPOCH_STARTED, 3, LATER))
    data = {"flag": "loss_spike", "step": 7}
    kit.emit(TelemetryEvent(EventType.RED_FLAG_RAISED, data=data, message="Loss spike", time_unix_nano=at(2)))
    span = kit.span("red_flag")
    assert (span.start_time, span.end_time) == (at(2), at(2))
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (IDS.trace_id, IDS.span_id)
    said = {attr.RED_FLAG_NAME: "loss_spike", attr.STEP: 7, attr.EPOCH: 3, attr.EVENT_MESSAGE: "Loss spike"}
    assert dict(span.attributes or {}) == {attr.RUN_ID: "run-1"} | said
    assert kit.logs("nissa.event.red_flag_raised")


def test_a_red_flag_outside_of_any_epoch_is_a_root(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 5, IDS))
    kit.emit(TelemetryEvent(EventType.RED_FLAG_RAISED, data={"flag": "plateau"}, time_unix_nano=at(2)))
    span = kit.span("red_flag")
    assert span.parent is None
    assert attr.EPOCH not in (span.attributes or {})


def test_a_checkpoint_lasts_as_long_as_saving_it_did(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS))
    kit.emit(epoch_event(EventType.CHECKPOINT_SAVED, 4, IDS, path="a.pt", started=at(1)))
    span = kit.span("checkpoint")
    assert (span.start_time, span.end_time) == (at(1), at(4))
    assert span.parent is not None
    assert span.parent.span_id == IDS.span_id
    assert (span.attributes or {})[attr.CHECKPOINT_PATH] == "a.pt"
    assert (span.attributes or {})[attr.CHECKPOINT_SAVED] is True
    assert span.status.status_code is StatusCode.UNSET


def test_a_checkpoint_that_failed_says_so(kit: "Kit", epoch_event: Epoch) -> None:
    kit.emit(epoch_event(EventType.CHECKPOINT_SAVED, 4, None, error="OSError"))
    span = kit.span("checkpoint")
    assert span.parent is None
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "OSError")
    assert (span.attributes or {})[attr.CHECKPOINT_SAVED] is False


def test_an_epoch_that_the_sampler_drops_takes_its_children_along(
    make_kit: Callable[..., "Kit"], epoch_event: Epoch
) -> None:
    kit = make_kit(sampler=ParentBased(ALWAYS_OFF))
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS), epoch_event(EventType.EPOCH_COMPLETED, 2, IDS))
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 2, LATER))
    kit.backend.record(step(1.5))
    kit.backend.record(validation(1))
    kit.emit(epoch_event(EventType.CHECKPOINT_SAVED, 2, IDS))
    kit.emit(epoch_event(EventType.EPOCH_COMPLETED, 3, LATER))
    assert kit.exporter.get_finished_spans() == ()


def test_what_is_remembered_of_epochs_is_bounded(kit: "Kit", epoch_event: Epoch) -> None:
    for number in range(50):
        kit.emit(epoch_event(EventType.EPOCH_STARTED, number, SpanIds(number + 1, number + 1)))
    assert sum(len(recent) for recent in kit.backend._epochs._recent.values()) == 2
