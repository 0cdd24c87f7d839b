"""What becomes of each event of the hub."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from opentelemetry import _logs, metrics, trace

from nissa.config import TelemetryConfig
from nissa.events import EventType, SpanIds, Stage, TelemetryEvent
from nissa.hub.error_boundary import ErrorBoundary
from nissa.otel.backend import OpenTelemetryBackend
from nissa.otel.setup import Providers
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from tests.unit.otel.conftest import Kit, Life

START = 1_700_000_000_000_000_000


def test_a_foreign_event_is_told_with_its_details(kit: "Kit") -> None:
    data = {"reward": 0.5, "ok": True, "count": 3, "why": "x", "nested": {"a": 1}, "type": "mine"}
    kit.emit(TelemetryEvent("PPO_Update", data=data, message="updated", env_id="2", epoch=0, time_unix_nano=START))
    (log,) = kit.logs("nissa.event.ppo_update")
    record = log.log_record
    assert (record.body, record.timestamp) == ("updated", START)
    assert dict(record.attributes or {}) == {
        attr.RUN_ID: "run-1",
        attr.EVENT_TYPE: "PPO_Update",
        attr.ENV_ID: "2",
        attr.EPOCH: 0,
        "nissa.event.reward": 0.5,
        "nissa.event.ok": True,
        "nissa.event.count": 3,
        "nissa.event.why": "x",
    }


def test_a_stage_change_is_an_event_in_the_seed_s_trace(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.advance(Stage.TRAINING, 1))
    (log,) = kit.logs("nissa.seed.stage")
    told = dict(log.log_record.attributes or {})
    assert log.log_record.trace_id == life.seed.ids.trace_id
    assert (told[attr.SEED_FROM], told[attr.SEED_TO], told[attr.SEED_STAGE]) == ("germinated", "training", "training")
    assert (told[attr.SEED_ID], told[attr.BLUEPRINT_ID], told[attr.SEED_SLOT]) == ("s1", "conv", "r0c1")


def test_the_end_of_a_life_is_told_in_its_root(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.cull(1, "no gain"))
    (log,) = kit.logs("nissa.event.seed_culled")
    assert (log.log_record.trace_id, log.log_record.span_id) == (life.seed.ids.trace_id, life.seed.ids.span_id)
    assert (log.log_record.attributes or {})["nissa.event.reason"] == "no gain"


def test_an_event_within_an_epoch_belongs_to_it(kit: "Kit", epoch_event: Callable[..., TelemetryEvent]) -> None:
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, SpanIds(5, 6)), TelemetryEvent(EventType.PLATEAU_DETECTED))
    (log,) = kit.logs("nissa.event.plateau_detected")
    assert (log.log_record.trace_id, log.log_record.span_id) == (5, 6)


def test_epochs_are_told_as_spans_only(kit: "Kit", epoch_event: Callable[..., TelemetryEvent]) -> None:
    ids = SpanIds(5, 6)
    kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, ids), epoch_event(EventType.EPOCH_COMPLETED, 1, ids))
    assert kit.records.get_finished_logs() == ()


def test_the_run_s_own_events_are_told(kit: "Kit") -> None:
    kit.emit(TelemetryEvent(EventType.TRAINING_STARTED), TelemetryEvent(EventType.TRAINING_ENDED))
    assert len(kit.logs("nissa.event.training_started")) == 1
    assert len(kit.logs("nissa.event.training_ended")) == 1


def test_a_gate_of_a_seed_that_nobody_knows_is_told_too(kit: "Kit", life: "Life") -> None:
    kit.emit(replace(life.gate(1, passed=False, failed=["gain_1%"]), seed=None))
    (log,) = kit.logs("nissa.seed.gate")
    told = log.log_record.attributes or {}
    assert (told[attr.SEED_ID], told[attr.GATE_PASSED], told[attr.GATE_CHECKS_FAILED]) == ("s1", False, ("gain_1%",))


def test_a_refusal_without_a_seed_is_told_too(kit: "Kit", life: "Life") -> None:
    kit.emit(replace(life.refuse(1), seed=None))
    (log,) = kit.logs("nissa.seed.refused")
    assert "not allowed" in str((log.log_record.attributes or {})[attr.TRANSITION_REFUSED])
    assert log.log_record.severity_text == "WARN"
    assert kit.logs("nissa.seed.stage") == []


def test_a_seed_s_own_events_are_told_once(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.gate(1, passed=True), life.refuse(2))
    names = [log.log_record.event_name for log in kit.records.get_finished_logs()]
    assert names == ["nissa.event.seed_germinated", "nissa.seed.gate", "nissa.seed.refused"]


def test_closing_flushes_the_application_s_providers_and_leaves_them_alone(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0))
    assert list(kit.metrics()) == ["nissa.seed.count"]
    kit.backend.close(5.0)
    assert kit.metrics() == {}
    with kit.tracer.get_tracer("app").start_as_current_span("still works"):
        pass
    assert len(kit.spans("still works")) == 1
    kit.meter.get_meter("app").create_counter("requests").add(1)
    assert kit.reader.take() is not None


def no_providers() -> Providers:
    return Providers(None, None, None, owned=False, folder=None, origin="nowhere")


def api_providers() -> Providers:
    return Providers(
        trace.ProxyTracerProvider(),
        metrics.NoOpMeterProvider(),
        _logs.NoOpLoggerProvider(),
        owned=False,
        folder=None,
        origin="the API",
    )


@pytest.mark.parametrize("providers", [no_providers, api_providers])
def test_it_works_where_nothing_can_be_exported(
    life: "Life", providers: Callable[[], Providers], epoch_event: Callable[..., TelemetryEvent]
) -> None:
    backend = OpenTelemetryBackend(
        providers(), TelemetryConfig.standard(), run_id="r", start=0, error_boundary=ErrorBoundary(), version="1"
    )
    assert backend.refused
    for event in (epoch_event(EventType.EPOCH_STARTED, 0, SpanIds(1, 2)), life.germinate(1), life.cull(2)):
        backend.emit(event)
    assert backend.flush(1.0)
    backend.close(1.0)
