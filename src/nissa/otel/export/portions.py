"""Exports spans and log records in portions that a collector takes: by default it refuses messages above 4 MiB.

The SDK batches by number. Attributes hold narratives, messages of gates and whatever the application adds, so that the
usual 512 in a batch can be too much, and a batch that is refused is lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

MOST_BYTES: Final = 3 * 1024 * 1024
"""Estimated size of one portion; the estimate is rough, and the bound is at 4 MiB."""
_FRAME: Final = 64
"""Bytes of a span, record, event or link besides its texts: ids, times, tags, lengths; twice for the first two."""
_PAIR: Final = 16
"""Bytes of an attribute besides its texts; more than a number takes."""

T = TypeVar("T")


def span_processor(span_exporter: SpanExporter, *_: Any, **__: Any) -> BatchSpanProcessor:
    """Return what the SDK's configurator would make of an exporter, one that exports in portions."""
    return BatchSpanProcessor(_portioned(span_exporter, span_size, SpanExportResult))


def log_processor(exporter: LogRecordExporter, *_: Any, **__: Any) -> BatchLogRecordProcessor:
    """Return what the SDK's configurator would make of an exporter, one that exports in portions."""
    return BatchLogRecordProcessor(_portioned(exporter, record_size, LogRecordExportResult))


def _portioned(exporter: Any, size: Callable[[Any], int], results: Any) -> Any:
    """Have an exporter hand batches on in portions of at most `MOST_BYTES`; an item that is larger goes alone."""
    whole = exporter.export

    def export(batch: Sequence[Any]) -> Any:
        outcomes = [whole(portion) for portion in portions(batch, size)]
        return results.FAILURE if results.FAILURE in outcomes else results.SUCCESS

    exporter.export = export
    return exporter


def portions(items: Sequence[T], size: Callable[[T], int], most: int = MOST_BYTES) -> Iterator[Sequence[T]]:
    """Yield items in their order, as many at a time as are at most so many bytes together."""
    portion: list[T] = []
    total = 0
    for item in items:
        weight = size(item)
        if portion and total + weight > most:
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += weight
    if portion:
        yield portion


def span_size(span: ReadableSpan) -> int:
    """Return about how many bytes a span takes on the wire."""
    parts: list[Any] = [*span.events, *span.links]
    names = _text(span.name) + sum(_text(event.name) for event in span.events)
    return 2 * _FRAME + names + _pairs(span.attributes) + sum(_FRAME + _pairs(part.attributes) for part in parts)


def record_size(record: ReadableLogRecord) -> int:
    """Return about how many bytes a log record takes on the wire."""
    inner = record.log_record
    return 2 * _FRAME + _text(inner.event_name) + _text(inner.body) + _pairs(inner.attributes)


def _pairs(attributes: Mapping[str, Any] | None) -> int:
    return sum(_PAIR + _text(key) + _text(value) for key, value in (attributes or {}).items())


def _text(value: object) -> int:
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list | tuple):
        return sum(_PAIR + _text(each) for each in value)
    return len(str(value).encode(errors="replace"))
