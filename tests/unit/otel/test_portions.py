"""Portions of spans and log records that a collector takes."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nissa.otel.export.portions import (
    MOST_BYTES,
    log_processor,
    portions,
    record_size,
    span_processor,
    span_size,
)

LIMIT = 4 * 1024 * 1024
ATTRIBUTES: dict[str, Any] = {
    "none": {},
    "numbers": {"a": 2**62, "b": 0.1, "c": True},
    "text": {"narrative": "growing " * 500},
    "umlauts": {"narrative": "ü" * 3000},
    "floats": {"values": [1.0] * 500},
    "flags": {"values": [True] * 500},
    "texts": {"values": ["ab"] * 500},
}
EACH = pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=ATTRIBUTES.keys())


def spans(attributes: dict[str, Any], count: int = 20) -> Sequence[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(count):
        with provider.get_tracer("tests").start_as_current_span("span", attributes=attributes) as span:
            span.add_event("event", attributes)
            span.add_link(span.get_span_context(), attributes)
    return exporter.get_finished_spans()


@EACH
def test_a_span_is_estimated_at_what_it_takes_or_more(attributes: dict[str, Any]) -> None:
    made = spans(attributes)
    wire = encode_spans(made).ByteSize()
    assert wire * 0.9 < sum(map(span_size, made)) < wire * 6


@EACH
def test_a_record_is_estimated_at_what_it_takes_or_more(attributes: dict[str, Any]) -> None:
    make: Callable[[], Any] = InMemoryLogRecordExporter
    exporter = make()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    for _ in range(20):
        provider.get_logger("tests").emit(event_name="event", body="a body", attributes=attributes)
    made = exporter.get_finished_logs()
    wire = encode_logs(made).ByteSize()
    assert wire * 0.9 < sum(map(record_size, made)) < wire * 6


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1, 2, 3], [[1, 2, 3]]),
        ([6, 4, 1], [[6, 4], [1]]),
        ([11, 1], [[11], [1]]),
        ([1, 11, 1], [[1], [11], [1]]),
    ],
    ids=["nothing", "little", "much", "too-large-first", "too-large-within"],
)
def test_portions_keep_the_order_and_the_bound(sizes: list[int], expected: list[list[int]]) -> None:
    assert [list(each) for each in portions(sizes, int, 10)] == expected


class Collecting(SpanExporter):
    """Refuses what is larger than a collector takes, and the second portion in any case, if told so."""

    def __init__(self, *, refuses_second: bool = False) -> None:
        self.batches: list[int] = []
        self.refuses_second = refuses_second

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        assert encode_spans(spans).ByteSize() < LIMIT
        self.batches.append(len(spans))
        refused = self.refuses_second and len(self.batches) == 2
        return SpanExportResult.FAILURE if refused else SpanExportResult.SUCCESS


@pytest.mark.parametrize("refuses", [False, True], ids=["taken", "refused"])
def test_a_batch_that_is_too_large_goes_in_portions_and_fails_where_one_does(refuses: bool) -> None:
    made = spans({"text": "x" * 10_000}, count=512)
    assert encode_spans(made).ByteSize() > 3 * LIMIT
    exporter = Collecting(refuses_second=refuses)
    span_processor(exporter).shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated
    assert exporter.export(made) is (SpanExportResult.FAILURE if refuses else SpanExportResult.SUCCESS)
    assert sum(exporter.batches) == 512
    assert len(exporter.batches) == -(-sum(map(span_size, made)) // MOST_BYTES)


def test_log_records_go_in_portions_too() -> None:
    class Counting(InMemoryLogRecordExporter):
        batches = 0

        def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
            Counting.batches += 1
            return super().export(batch)

    make: Callable[[], Any] = Counting
    exporter = make()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(log_processor(exporter))
    for _ in range(400):
        provider.get_logger("tests").emit(body="x" * 20_000)
    provider.shutdown()
    assert len(exporter.get_finished_logs()) == 400
    assert Counting.batches >= 3
