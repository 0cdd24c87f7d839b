"""Sink that writes requests to the journal and sends them behind a cursor per signal.

What has been written while a request was under way is sent together, so that a slow receiver, or one that was away, is
caught up with: frames are written ten times a second, and a receiver may take longer than that for each request.
"""

import gzip
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from nissa.journal import Kind, Signal
from nissa.otel.export.encoding import Request, metric_requests, record_requests, span_requests
from nissa.otel.export.pending_writes import REWRITE_SECONDS, Entry, PendingWrites, by_kind
from nissa.otel.export.sender import Sender
from nissa.otel.otlp.outcome import Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

    from nissa.otel.export.export_log import ExportLog
    from nissa.otel.export.pipeline import Client
    from nissa.otel.otlp.outcome import SendResult

_MAX_BACKOFF_SECONDS: Final = 5.0
_FIRST_BACKOFF_SECONDS: Final = 0.5
BATCH_BYTES: Final = 1 << 20
"""Maximum size of frames that are sent together, before compression."""
_MAX_PAUSE_SECONDS: Final = 300.0
"""Maximum pause that a receiver can ask for: a wrong ``Retry-After`` must not end the delivery of a run."""

_COMPRESSION_LEVEL: Final = 6
_ENDPOINT_PAUSE_SECONDS: Final = 30.0
"""Pause after an answer that concerns every request, such as 401: somebody has to change something first."""


class Journal(Protocol):
    """The part of `nissa.journal.Spool` that the sink uses; `MemoryJournal` has it too."""

    @property
    def dropped(self) -> Counter[Signal]:
        """Items that were removed because there was no room for them."""

    @property
    def size_bytes(self) -> int:
        """Size of everything that is kept."""

    def append(self, signal: Signal, payload: bytes, items: int, *, time_unix_nano: int, kind: Kind = "bulk") -> None:
        """Append a compressed request; raises JournalError."""

    def pending(self, signal: Signal, limit_bytes: int) -> list[Any]:
        """Return the oldest frames (`nissa.journal.Frame` or `MemoryFrame`) that are not delivered."""

    def advance(self, frame: Any) -> None:
        """Move the signal's cursor behind a frame."""

    def waiting(self, signal: Signal) -> int:
        """Return the number of items that are not delivered."""

    def close(self) -> None:
        """Close the files."""


@dataclass(slots=True)
class _Lane:
    """Delivery of one signal.

    Attributes:
        frames: Frames that are being sent, in one request.
        apart: Number of frames that are sent one by one, because a request of several was refused.
        failures: Number of consecutive failed attempts.
        retry_at: Time of the next attempt, of `time.monotonic`.
        failed: Whether the last attempt failed.
    """

    sender: Sender
    frames: list[Any] = field(default_factory=list)
    apart: int = 0
    failures: int = 0
    retry_at: float = 0.0

    @property
    def failed(self) -> bool:
        return self.failures > 0


class SpoolSink:
    """Writes ahead to a journal, and sends from it.

    Args:
        journal: Where requests are kept until they are delivered.
        clients: OTLP client per signal; a signal without one is not exported.
        wake: Called by senders when a result has arrived.
        log: Counts and logs what becomes of the items.
        pause: Called between parts of the encoding.
    """

    def __init__(
        self,
        journal: Journal,
        clients: "Mapping[Signal, Client]",
        *,
        wake: Callable[[], object],
        log: "ExportLog",
        pause: Callable[[], object] = lambda: None,
    ) -> None:
        self._journal = journal
        self._pause = pause
        self._wake = wake
        self._log = log
        self._results: deque[tuple[Signal, SendResult]] = deque()
        self._pending = PendingWrites(self._write, lambda: journal.dropped, log)
        self._lanes = {
            signal: _Lane(Sender(signal, client, self._received(signal))) for signal, client in clients.items()
        }

    def _received(self, signal: Signal) -> "Callable[[SendResult], object]":
        def received(result: "SendResult") -> None:
            self._results.append((signal, result))
            self._wake()

        return received

    # Writing.

    def write_spans(self, spans: list[Any]) -> None:
        """Append spans to the journal."""
        if "traces" in self._lanes:
            for kind, part in by_kind(spans):
                for request in span_requests(part, self._unencodable("traces")):
                    self._append("traces", request, kind)

    def write_records(self, records: list[Any]) -> None:
        """Append log records to the journal."""
        if "logs" in self._lanes:
            for request in record_requests(records, self._unencodable("logs")):
                self._append("logs", request, "lifecycle")

    def write_metrics(self, data: "MetricsData") -> None:
        """Append metrics to the journal."""
        if "metrics" in self._lanes:
            for request in metric_requests(data, self._unencodable("metrics"), self._pause):
                self._append("metrics", request, "bulk")

    def _unencodable(self, signal: Signal) -> Callable[[int, Exception], None]:
        return lambda items, error: self._log.lost(signal, items, f"it cannot be encoded: {error}")

    def _append(self, signal: Signal, request: Request, kind: Kind) -> None:
        payload = gzip.compress(request.body, _COMPRESSION_LEVEL, mtime=0)
        self._pending.add(Entry(signal, payload, request.items, kind))

    def _write(self, entry: Entry) -> None:
        self._journal.append(
            entry.signal, entry.payload, entry.items, time_unix_nano=entry.time_unix_nano, kind=entry.kind
        )

    # Sending.

    def deliver(self, *, now: bool = False) -> float:
        """Handle results, and send the next frame of each signal; return the seconds until the next attempt."""
        self._pending.flush()
        while self._results:
            self._handle(*self._results.popleft())
        pause = REWRITE_SECONDS if self._pending else inf
        for signal, lane in self._lanes.items():
            if now:
                lane.retry_at, lane.failures = 0.0, 0
            pause = min(pause, self._continue(signal, lane))
        return pause

    def _continue(self, signal: Signal, lane: _Lane) -> float:
        if lane.frames:
            return inf  # the sender wakes the thread
        rest = lane.retry_at - monotonic()
        # After a failure a single frame shows whether the receiver is back.
        limit = 0 if lane.apart or lane.failed else BATCH_BYTES
        if rest <= 0 and (frames := self._journal.pending(signal, limit)):
            lane.frames = frames
            lane.sender.send([frame.payload for frame in frames])
        return inf if rest <= 0 else rest

    def _handle(self, signal: Signal, result: "SendResult") -> None:
        lane = self._lanes[signal]
        frames, lane.frames = lane.frames, []
        if not frames:
            return
        if result.outcome is Outcome.RETRY or result.endpoint_fault:
            lane.retry_at = monotonic() + _pause(result, lane.failures)
            lane.failures += 1
            self._log.failed(signal, result.reason, refused=result.endpoint_fault)
            return
        lane.failures, lane.retry_at = 0, 0.0
        if result.outcome is Outcome.REFUSED and len(frames) > 1:
            lane.apart = len(frames)
            return
        lane.apart = max(0, lane.apart - len(frames))
        for frame in frames:
            self._journal.advance(frame)
        items = sum(frame.items for frame in frames)
        if result.outcome is Outcome.DELIVERED:
            self._log.delivered(signal, items, rejected=result.rejected, reason=result.reason)
        else:
            self._log.refused(signal, items, result.reason)

    @property
    def outcome(self) -> bool | None:
        """Whether everything written was delivered; None while an attempt is still being made."""
        outcome = not self._pending
        for signal, lane in self._lanes.items():
            if lane.frames or (not lane.failed and self._journal.waiting(signal)):
                return None
            outcome = outcome and not lane.failed
        return outcome

    @property
    def size_bytes(self) -> int:
        """Size of the journal."""
        return self._journal.size_bytes

    @property
    def waiting(self) -> Counter[Signal]:
        """Items per signal that are not delivered."""
        return self._pending.items + Counter({signal: self._journal.waiting(signal) for signal in self._lanes})

    @property
    def missing(self) -> int:
        """Number of items so far that were refused or lost."""
        return self._log.missing

    def lost(self, signal: Signal, items: int, reason: str) -> None:
        """Count and log items that will never be delivered."""
        self._log.lost(signal, items, reason)

    def late(self, seconds: float) -> None:
        """Log what is not delivered after a flush that took so long."""
        self._log.late(self.waiting, seconds)

    def close(self) -> None:
        """Close the journal; what is not delivered stays in it."""
        self._pending.flush()
        for lane in self._lanes.values():
            lane.sender.close()
        self._log.ended(self.waiting)
        self._journal.close()


def _pause(result: "SendResult", failures: int) -> float:
    """Return the seconds until the next attempt."""
    if result.endpoint_fault:
        return _ENDPOINT_PAUSE_SECONDS
    backoff: float = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2**failures)
    return min(_MAX_PAUSE_SECONDS, max(backoff, result.retry_after or 0.0))
