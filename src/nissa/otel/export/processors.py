"""Span and log record processors that hand finished items to the export thread.

`on_end` and `on_emit` run wherever a span ends: on the training thread, inside a signal handler, inside a finalizer. They
only append to a queue and take no lock.
"""

from copy import copy
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

    from nissa.otel.export.pipeline import ExportPipeline

_MILLIS: Final = 1_000.0


class PipelineSpanProcessor(SpanProcessor):
    """Hands ended spans to a pipeline."""

    def __init__(self, pipeline: "ExportPipeline") -> None:
        self._pipeline = pipeline

    def on_end(self, span: "ReadableSpan") -> None:
        """Queue a span, if it is sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._pipeline.add_span(span)

    def shutdown(self) -> None:
        """Export everything and end the pipeline."""
        self._pipeline.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export everything; return whether all of it was delivered in time."""
        return self._pipeline.flush(timeout_millis / _MILLIS)


class PipelineLogRecordProcessor(LogRecordProcessor):
    """Hands log records to a pipeline."""

    def __init__(self, pipeline: "ExportPipeline") -> None:
        self._pipeline = pipeline

    def on_emit(self, log_record: "ReadWriteLogRecord") -> None:
        """Queue a log record."""
        self._pipeline.add_record(readable(log_record))

    def shutdown(self) -> None:
        """Export everything and end the pipeline."""
        self._pipeline.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export everything; return whether all of it was delivered in time."""
        return self._pipeline.flush(timeout_millis / _MILLIS)


def readable(record: "ReadWriteLogRecord") -> ReadableLogRecord:
    """Return the record that the encoders take, without the context, which may be large."""
    inner = copy(record.log_record)
    inner.context = Context()
    return ReadableLogRecord(
        log_record=inner,
        resource=record.resource or Resource.create({}),
        instrumentation_scope=record.instrumentation_scope,
        limits=record.limits,
    )
