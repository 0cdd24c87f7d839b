"""Sink that writes OTLP JSON lines into a folder, for a run without an exporter."""

import json
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.json.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans

from nissa.journal import Signal
from nissa.otel.export.pending_writes import REWRITE_SECONDS, Entry, PendingWrites
from nissa.otel.metrics.metric_lines import metric_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.metrics.export import MetricsData

    from nissa.journal.append_file import AppendFile
    from nissa.otel.export.export_log import ExportLog


class FileSink:
    """Writes one span or log record per line, and metrics in lines of up to 1,000 points.

    Args:
        files: Open file per signal.
        log: Counts and logs what becomes of the items.
    """

    def __init__(self, files: "Mapping[Signal, AppendFile]", *, log: "ExportLog") -> None:
        self._files = files
        self._log = log
        self._pending = PendingWrites(self._write, log)

    def write_spans(self, spans: list[Any]) -> None:
        """Append spans to ``traces.jsonl``."""
        self._add("traces", self._lines("traces", spans, encode_spans))

    def write_records(self, records: list[Any]) -> None:
        """Append log records to ``logs.jsonl``."""
        self._add("logs", self._lines("logs", records, encode_logs))

    def write_metrics(self, data: "MetricsData") -> None:
        """Append metrics to ``metrics.jsonl``."""
        self._add("metrics", metric_lines(data))

    def _lines(self, signal: Signal, items: list[Any], encode: Callable[[list[Any]], Any]) -> Iterator[tuple[str, int]]:
        for item in items:
            try:
                line = json.dumps(encode([item]).to_dict(), separators=(",", ":"))
                line.encode()
            except Exception as error:  # noqa: BLE001 - whatever the encoder makes of foreign attributes
                self._log.lost(signal, 1, f"it cannot be encoded: {error}")
            else:
                yield f"{line}\n", 1

    def _add(self, signal: Signal, lines: Iterator[tuple[str, int]]) -> None:
        for line, items in lines:
            self._pending.add(Entry(signal, line.encode(), items))

    def _write(self, entry: Entry) -> None:
        self._files[entry.signal].append(entry.payload)
        self._log.delivered(entry.signal, entry.items)

    def deliver(self, *, now: bool = False) -> float:  # noqa: ARG002 - the interface of a sink
        """Write what waits for the disk; return the seconds until the next attempt."""
        self._pending.flush()
        return REWRITE_SECONDS if self._pending else inf

    @property
    def outcome(self) -> bool:
        """Whether all lines so far were written."""
        return not self._pending

    def close(self) -> None:
        """Write what waits, and close the files."""
        self._pending.flush()
        for signal, items in self._pending.items.items():
            self._log.lost(signal, items, "the file cannot be written")
        for file in self._files.values():
            file.close()
