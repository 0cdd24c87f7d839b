"""OTLP JSON lines in a folder, through the official file exporter: what a run writes when no exporter is configured."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from opentelemetry.exporter.otlp.json.file._log_exporter import FileLogExporter
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from nissa.backends.append_file import LineFile
from nissa.errors import ConfigurationError
from nissa.otel.metrics.metric_lines import LineMetricExporter

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

SIGNALS: Final = ("traces", "metrics", "logs")

_AT_THE_END: Final = 365 * 86_400_000.0
"""Milliseconds; an infinite interval would make the SDK leave out the collection at shutdown too."""


@dataclass(frozen=True, slots=True)
class FileProviders:
    """Providers whose telemetry goes to files of one folder."""

    tracer: TracerProvider
    meter: MeterProvider
    logger: LoggerProvider
    files: tuple[LineFile, ...]


def build(folder: Path, suffix: str, resource: "Resource", interval_seconds: float) -> FileProviders:
    """Return providers that write ``traces``, ``metrics`` and ``logs`` with a suffix into a folder.

    Spans and log records are written as they come, on the thread of the backend, so that a killed run lacks none.

    Raises:
        ConfigurationError: The folder cannot be written, or ``OTEL_METRIC_EXPORT_INTERVAL`` is no number.
    """
    interval = _interval_millis(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL"), interval_seconds)
    files = tuple(_open(folder, f"{signal}{suffix}.jsonl") for signal in SIGNALS)
    # The exporters write, flush and close, and ask no more of a stream.
    traces, _, logs = (cast("IO[str]", file) for file in files)
    tracer = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracer.add_span_processor(SimpleSpanProcessor(FileSpanExporter(stream=traces)))
    reader = PeriodicExportingMetricReader(LineMetricExporter(files[1]), export_interval_millis=interval)
    meter = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    logger = LoggerProvider(resource=resource, shutdown_on_exit=False)
    logger.add_log_record_processor(SimpleLogRecordProcessor(FileLogExporter(stream=logs)))
    return FileProviders(tracer, meter, logger, files)


def _interval_millis(wanted: str | None, interval_seconds: float) -> float:
    try:
        interval = float(wanted) if wanted else interval_seconds * 1000
    except ValueError:
        raise ConfigurationError(
            f"OTEL_METRIC_EXPORT_INTERVAL is {wanted!r}; give milliseconds, such as 15000, or leave it unset."
        ) from None
    return interval if interval > 0 else _AT_THE_END


def _open(folder: Path, name: str) -> LineFile:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return LineFile(folder / name)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write telemetry to {folder}: {error.strerror}. Choose another folder with "
            "NISSA_FILES__DIRECTORY or files.directory, or configure an exporter, such as OTEL_TRACES_EXPORTER=otlp."
        ) from error
