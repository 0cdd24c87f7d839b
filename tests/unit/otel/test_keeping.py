"""Spans and log records wait for a collector that is away; what cannot wait is counted."""

import os
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExportResult

from nissa.otel.export import keeping, overhearing
from nissa.otel.export.keeping import Kept
from nissa.otel.export.reach import Reach
from nissa.semconv import spans as names


class Collector(OTLPSpanExporter):
    """An exporter whose collector is where the test says."""

    def __init__(self) -> None:
        super().__init__(endpoint="there:4317", insecure=True)
        self.up, self.error = True, None
        self.got: list[str] = []
        self.tries = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.tries += 1
        if self.error is not None:
            raise self.error
        if self.up:
            self.got += [span.name for span in spans]
        return SpanExportResult.SUCCESS if self.up else SpanExportResult.FAILURE

    error: Exception | None


class Rig:
    """A real provider, with a queue of ten, whose exporter is kept."""

    def __init__(self) -> None:
        self.exporter = Collector()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.processor = BatchSpanProcessor(
            self.exporter, max_queue_size=10, max_export_batch_size=10, schedule_delay_millis=3_600_000
        )
        self.provider.add_span_processor(self.processor)
        keeping.keep(self.provider, MeterProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False))
        (channel,) = keeping.channels(self.provider)
        assert isinstance(channel, Kept)
        self.channel = channel

    def end(self, *spans: str) -> None:
        for name in spans:
            self.provider.get_tracer("t").start_span(name).end()
        self.provider.force_flush()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(keeping, "_REST_SECONDS", 0.0)
    made = Rig()
    yield made
    made.provider.shutdown()
    overhearing.uninstall()


def test_what_was_not_delivered_arrives_when_the_collector_is_back(rig: Rig) -> None:
    rig.exporter.up = False
    rig.end("a")
    rig.end("b", "c")
    assert rig.channel.behind
    assert rig.channel.waiting == 3
    rig.exporter.up = True
    rig.end("d")
    assert sorted(rig.exporter.got) == ["a", "b", "c", "d"]
    assert (rig.channel.waiting, rig.channel.reach.lost) == (0, {})


def test_a_retry_needs_no_new_span(rig: Rig) -> None:
    rig.exporter.up = False
    rig.end("a")
    rig.exporter.up = True
    rig.channel.retry()
    assert rig.exporter.got == ["a"]


def test_after_an_attempt_in_vain_nothing_is_tried_for_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_REST_SECONDS", 60.0)
    rig.exporter.up = False
    rig.end("a")
    rig.end("b")
    assert rig.exporter.tries == 1
    rig.channel.retry()
    assert rig.exporter.tries == 2


def test_what_is_refused_is_lost_counted_and_in_nobodys_way(rig: Rig) -> None:
    rig.exporter.error = ValueError("cannot be encoded")
    rig.end("a", "b")
    rig.exporter.error = None
    rig.end("c")
    assert rig.exporter.got == ["c"]
    assert rig.channel.reach.lost == {"spans": 2}


def test_steps_give_way_before_the_lifecycle_and_the_rest_by_age(rig: Rig) -> None:
    rig.exporter.up = False
    for number in range(6):
        rig.end(f"seed-{number}", names.STEP)
    rig.end(*(f"late-{number}" for number in range(6)))
    rig.exporter.up = True
    rig.channel.retry()
    kept = sorted(rig.exporter.got)
    assert names.STEP not in kept
    assert len(kept) == 10
    assert rig.channel.reach.lost == {"spans": 8}


def test_a_full_queue_is_counted(rig: Rig) -> None:
    emit = rig.processor._batch_processor
    with emit._export_lock:  # as while an export hangs
        for number in range(13):
            rig.provider.get_tracer("t").start_span(f"s{number}").end()
    assert rig.channel.reach.lost == {"spans": 3}


def test_a_forked_child_sends_what_is_its_own_and_keeps_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.exporter.up = False
    rig.end("the parent's")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    rig.exporter.up = True
    assert rig.exporter.export([SimpleNamespace(name="the child's")]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
    rig.channel.retry()
    assert rig.exporter.got == ["the child's"]


def test_exporters_of_other_kinds_are_left_as_they_are() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = ConsoleSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    keeping.keep(provider, MeterProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False))
    assert keeping.channels(provider) == []
    assert "export" not in vars(exporter)
    assert keeping.channels(TracerProvider(shutdown_on_exit=False)) == ()
    provider.shutdown()
    overhearing.uninstall()


def test_lost_metric_points_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[bool] = []

    def export(_: Any, __: Any, **___: Any) -> Any:
        return SimpleNamespace(name="SUCCESS" if arrived else "FAILURE")

    monkeypatch.setattr(OTLPMetricExporter, "export", export)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint="there:4317", insecure=True), 3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    keeping.keep(TracerProvider(shutdown_on_exit=False), provider, LoggerProvider(shutdown_on_exit=False))
    gauge = provider.get_meter("t").create_gauge("g")
    for number in range(3):
        gauge.set(1, {"n": number})
    provider.force_flush()
    (channel,) = keeping.channels(provider)
    assert channel.reach.lost == {"metric points": 3}
    arrived.append(True)
    provider.force_flush()
    assert channel.reach.lost == {"metric points": 3}
    assert (channel.waiting, channel.behind) == (0, False)
    provider.shutdown()
    overhearing.uninstall()


def test_queues_are_long_unless_the_user_has_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "600")
    with keeping.long_queues(os.environ.copy()):
        processor = BatchSpanProcessor(Collector())
        assert processor._batch_processor._max_queue_size == keeping.QUEUE_SIZE
        processor._batch_processor.shutdown()
        assert os.environ["OTEL_BLRP_MAX_QUEUE_SIZE"] == "600"
    assert "OTEL_BSP_MAX_QUEUE_SIZE" not in os.environ
    assert os.environ["OTEL_BLRP_MAX_QUEUE_SIZE"] == "600"


def test_a_reach_is_shared_by_the_signals_of_one_process() -> None:
    reach = Reach()
    one = Kept(Collector(), [], "spans", SpanExportResult, reach, most=1)
    other = Kept(Collector(), [1, 2], "log records", SpanExportResult, reach, most=1)
    assert keeping.waiting([one, other]) == {"spans": 0, "log records": 2}
    assert one.endpoint == "there:4317"
