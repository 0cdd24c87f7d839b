"""Construction of a run's pipeline: to a collector through the spool, or to files."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from nissa.errors import ConfigurationError, JournalError
from nissa.journal import SIGNALS, FileJournal, Spool
from nissa.otel.export.export_log import ExportLog
from nissa.otel.export.leftovers import JournalWithLeftovers
from nissa.otel.export.memory_journal import MemoryJournal
from nissa.otel.export.memory_lines import MemoryLines
from nissa.otel.export.metric_reader import ExportReader
from nissa.otel.export.pipeline import MAX_METRIC_SECONDS, ExportPipeline
from nissa.otel.export.processors import PipelineLogRecordProcessor, PipelineSpanProcessor
from nissa.otel.otlp.selection import OTLP, selected_exporters
from nissa.otel.otlp.settings import OtlpSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from nissa.config.sections import FilesConfig
    from nissa.journal import Signal
    from nissa.otel.export.file_sink import LineJournal
    from nissa.otel.export.pipeline import Sink
    from nissa.otel.export.spool_sink import Journal

_logger = logging.getLogger("nissa")

INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"


@dataclass(frozen=True, slots=True)
class BuiltPipeline:
    """A pipeline with the parts that connect it to providers.

    Args:
        pipeline: Export thread and sink.
        log: Counts of delivered, refused and lost items.
        reader: Metric reader; its ``merge`` adds the metrics of the active run.
        signals: Signals that the pipeline exports.
        resource: Resource of the providers.
    """

    pipeline: ExportPipeline
    log: ExportLog
    reader: ExportReader
    signals: frozenset[str]
    resource: "Resource"

    def attach(self, tracer: TracerProvider, meter: MeterProvider, logger: LoggerProvider) -> None:
        """Have providers export through the pipeline."""
        if "traces" in self.signals:
            tracer.add_span_processor(PipelineSpanProcessor(self.pipeline))
        if "metrics" in self.signals:
            meter.add_metric_reader(self.reader)
        if "logs" in self.signals:
            logger.add_log_record_processor(PipelineLogRecordProcessor(self.pipeline))


def private_providers(built: BuiltPipeline) -> tuple[TracerProvider, MeterProvider, LoggerProvider]:
    """Return new providers, used by the run alone, that export through a pipeline."""
    tracer = TracerProvider(resource=built.resource, shutdown_on_exit=False)
    meter = MeterProvider(resource=built.resource, shutdown_on_exit=False)
    logger = LoggerProvider(resource=built.resource, shutdown_on_exit=False)
    built.attach(tracer, meter, logger)
    return tracer, meter, logger


def otlp_settings(environ: Mapping[str, str]) -> "dict[Signal, OtlpSettings]":
    """Return the OTLP settings of each signal that the variables export over OTLP.

    Raises:
        ConfigurationError: A variable has a value that cannot be used.
    """
    found: dict[Signal, OtlpSettings] = {}
    for each in selected_exporters(environ):
        if each.protocol is not None and each.signal not in found:
            named = None if each.exporter == OTLP else each.protocol  # otherwise a variable selects it
            found[each.signal] = OtlpSettings.from_environment(each.signal, environ, protocol=named)
    return found


def others(settings: "Mapping[Signal, OtlpSettings]", environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables that select the exporters that the pipeline does not replace, for the SDK's configurator."""
    selected = selected_exporters(environ)
    names = {
        signal: [each.exporter for each in selected if each.signal == signal and each.protocol is None]
        for signal in settings
    }
    return {f"OTEL_{signal.upper()}_EXPORTER": ",".join(found) or "none" for signal, found in names.items()}


def spool_pipeline(
    settings: "Mapping[Signal, OtlpSettings]",
    folder: Path,
    resource: "Resource",
    files: "FilesConfig",
    *,
    exit_seconds: float,
    environ: Mapping[str, str] = os.environ,
) -> BuiltPipeline:
    """Return a pipeline that writes ahead to a spool and sends from it.

    Raises:
        ConfigurationError: A credential provider, a TLS file, or a variable has a value that cannot be used.
    """
    # Imported here: a run that writes files needs neither client nor protobuf.
    from nissa.otel.export.spool_sink import SpoolSink  # noqa: PLC0415
    from nissa.otel.otlp.client import OtlpClient  # noqa: PLC0415

    interval = _interval(environ.get(INTERVAL), MAX_METRIC_SECONDS)
    reader = ExportReader(resource, environ)
    destinations = {signal: each.destination for signal, each in settings.items()}
    log = ExportLog({signal: each.address for signal, each in settings.items()}, str(folder))
    for each in settings.values():
        OtlpClient(each).close()  # raises here, where the caller still gets the error
    owner = os.getpid()
    directory = files.directory.absolute()

    def make_sink(wake: Callable[[], object], pause: Callable[[], object]) -> "Sink":
        forked = os.getpid() != owner
        own = folder.with_name(f"{folder.name}-pid{os.getpid()}") if forked else folder
        journal: Journal = _journal(own, destinations, files)
        if not forked:
            journal = JournalWithLeftovers(journal, directory, destinations)
        clients = {signal: OtlpClient(each) for signal, each in settings.items()}
        return SpoolSink(journal, clients, wake=wake, log=log, pause=pause)

    pipeline = ExportPipeline(
        make_sink,
        collect=partial(_collect, reader, owner),
        collect_changed=reader.take_changed,
        interval=interval,
        exit_seconds=exit_seconds,
    )
    return BuiltPipeline(pipeline, log, reader, frozenset(settings), resource)


def _journal(folder: Path, destinations: "Mapping[Signal, str]", files: "FilesConfig") -> "Journal":
    try:
        return Spool.create(folder, destinations, limit_bytes=files.max_spool_bytes, fsync=files.fsync, keep=files.keep)
    except JournalError as error:
        _logger.warning(
            "%s Until then telemetry is kept in memory only, and what is not delivered is lost with the process.", error
        )
        return MemoryJournal()


def file_pipeline(
    folder: Path, suffix: str, resource: "Resource", files: "FilesConfig", *, exit_seconds: float
) -> BuiltPipeline:
    """Return a pipeline that writes ``traces``, ``metrics`` and ``logs`` as OTLP JSON lines into a folder.

    Raises:
        ConfigurationError: The folder cannot be written, or ``OTEL_METRIC_EXPORT_INTERVAL`` is no number.
    """
    interval = _interval(os.environ.get(INTERVAL), files.export_interval_seconds)
    try:
        journal = FileJournal.create(folder, suffix, limit_bytes=files.max_bytes, fsync=files.fsync)
    except JournalError as error:
        raise ConfigurationError(f"{error} Or configure an exporter, such as OTEL_TRACES_EXPORTER=otlp.") from error
    return _lines_pipeline(journal, str(folder), resource, interval=interval, exit_seconds=exit_seconds)


def memory_pipeline(journal: MemoryLines, resource: "Resource", *, exit_seconds: float) -> BuiltPipeline:
    """Return a pipeline that keeps the lines of a `file_pipeline` in memory; metrics are written at a flush and the end."""
    return _lines_pipeline(journal, "memory", resource, interval=inf, exit_seconds=exit_seconds)


def _lines_pipeline(
    journal: "LineJournal", place: str, resource: "Resource", *, interval: float, exit_seconds: float
) -> BuiltPipeline:
    from nissa.otel.export.file_sink import FileSink  # noqa: PLC0415 - its encoders are imported where they are used

    reader = ExportReader(resource, {})
    log = ExportLog(dict.fromkeys(SIGNALS, place), place)
    owner = os.getpid()
    pipeline = ExportPipeline(
        lambda _, pause: FileSink(journal, log=log, pause=pause),
        collect=partial(_collect, reader, owner),
        collect_changed=reader.take_changed,
        interval=interval,
        exit_seconds=exit_seconds,
    )
    return BuiltPipeline(pipeline, log, reader, frozenset(SIGNALS), resource)


def _collect(reader: ExportReader, owner: int) -> Any:
    # In a forked child, locks of the SDK and the store may have been held at the fork.
    return reader.take() if os.getpid() == owner else None


def _interval(variable: str | None, seconds: float) -> float:
    """Return the seconds between two writes of metrics; infinity if the variable turns periodic exports off."""
    try:
        chosen = float(variable) / 1000 if variable else seconds
    except ValueError:
        raise ConfigurationError(
            f"{INTERVAL} is {variable!r}; give milliseconds, such as 15000, or leave it unset."
        ) from None
    return min(chosen, MAX_METRIC_SECONDS) if chosen > 0 else inf
