"""Sink that writes OTLP JSON lines into a folder, for a run without an exporter."""

import json
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans

from nissa.journal import Kind, Signal
from nissa.otel.compat import json_log_encoder
from nissa.otel.export.pending_writes import REWRITE_SECONDS, Entry, PendingWrites, by_kind
from nissa.otel.metrics.metric_lines import MetricLines
from nissa.otel.metrics.step_thinning import StepThinning

if TYPE_CHECKING:
    from collections import Counter

    from opentelemetry.sdk.metrics.export import MetricsData

    from nissa.otel.export.export_log import ExportLog


_encode_logs: Final = json_log_encoder()
_APPEND_BYTES: Final = 1 << 18
"""Size up to which lines are appended together."""


class LineJournal(Protocol):
    """The part of `nissa.journal.FileJournal` that the sink uses."""

    @property
    def dropped(self) -> "Counter[Signal]":
        """Items that were not written, or were removed at the bound."""

    @property
    def thinning(self) -> int:
        """One of how many sampled steps is recorded."""

    @property
    def size_bytes(self) -> int:
        """Size of everything that was written."""

    def append(self, signal: Signal, lines: bytes, items: int, *, kind: Kind = "bulk") -> None:
        """Append lines."""

    def close(self) -> None:
        """Close the files."""


class FileSink:
    """Writes one span or log record per line, and metrics in lines of up to 1,000 points.

    As the journal fills, gauges are written for fewer steps: every second one from half of the bound on, and so on.

    Args:
        journal: Files of the folder.
        log: Counts and logs what becomes of the items.
        pause: Called after each line.
    """

    def __init__(self, journal: LineJournal, *, log: "ExportLog", pause: Callable[[], object] = lambda: None) -> None:
        self._journal = journal
        self._pause = pause
        self._log = log
        self._pending = PendingWrites(self._write, lambda: journal.dropped, log)
        self._steps = StepThinning()
        self._metric_lines = MetricLines()

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return self._journal.size_bytes

    def write_spans(self, spans: list[Any]) -> None:
        """Append spans to ``traces.jsonl``."""
        for kind, part in by_kind(spans):
            self._add("traces", self._lines("traces", part, encode_spans), kind)

    def write_records(self, records: list[Any]) -> None:
        """Append log records to ``logs.jsonl``."""
        self._add("logs", self._lines("logs", records, _encode_logs), "lifecycle")

    def write_metrics(self, data: "MetricsData") -> None:
        """Append metrics to ``metrics.jsonl``."""
        self._add("metrics", self._metric_lines.lines(self._steps.thin(data, self._journal.thinning)), "bulk")

    def _lines(
        self, signal: Signal, items: list[Any], encode: Callable[[list[Any]], Any]
    ) -> Iterator[tuple[bytes, int]]:
        for item in items:
            try:
                line = json.dumps(encode([item]).to_dict(), separators=(",", ":")).encode()
            except Exception as error:  # noqa: BLE001 - whatever the encoder makes of foreign attributes
                self._log.lost(signal, 1, f"it cannot be encoded: {error}")
            else:
                yield line + b"\n", 1

    def _add(self, signal: Signal, lines: Iterator[tuple[bytes, int]], kind: Kind) -> None:
        """Append lines, several at a time: looking after the file takes as long for one as for many."""
        together: list[bytes] = []
        size = total = 0
        for line, items in lines:
            if size + len(line) > _APPEND_BYTES and together:
                self._pending.add(Entry(signal, b"".join(together), total, kind))
                together, size, total = [], 0, 0
            together.append(line)
            size += len(line)
            total += items
            self._pause()
        if together:
            self._pending.add(Entry(signal, b"".join(together), total, kind))

    def _write(self, entry: Entry) -> None:
        before = self._journal.dropped[entry.signal]
        self._journal.append(entry.signal, entry.payload, entry.items, kind=entry.kind)
        if self._journal.dropped[entry.signal] == before:
            self._log.delivered(entry.signal, entry.items)

    def deliver(self, *, now: bool = False) -> float:  # noqa: ARG002 - the interface of a sink
        """Write what waits for the disk; return the seconds until the next attempt."""
        self._pending.flush()
        return REWRITE_SECONDS if self._pending else inf

    @property
    def outcome(self) -> bool:
        """Whether all lines so far were written."""
        return not self._pending

    @property
    def missing(self) -> int:
        """Number of items so far that were refused or lost."""
        return self._log.missing

    def lost(self, signal: Signal, items: int, reason: str) -> None:
        """Count and log items that will never be written."""
        self._log.lost(signal, items, reason)

    def late(self, seconds: float) -> None:
        """Log what is not written after a flush that took so long."""
        self._log.late(self._pending.items, seconds)

    def close(self) -> None:
        """Write what waits, and close the files."""
        self._pending.flush()
        for signal, items in self._pending.items.items():
            self._log.lost(signal, items, "the file cannot be written")
        self._journal.close()
