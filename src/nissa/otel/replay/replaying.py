"""A whole replay: each file in its order, counted, and what could not be sent said by number and reason."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nissa.errors import ConfigurationError
from nissa.journal import SIGNALS, Frame
from nissa.otel.export.encoding import MAX_REQUEST_BYTES as MOST_BYTES
from nissa.otel.otlp.outcome import Outcome, SendResult
from nissa.otel.otlp.settings import ENDPOINTS, PREFIX, OtlpSettings
from nissa.otel.replay.lines import Skipped, files_of, lines_of
from nissa.otel.replay.requests import WHAT, Request, count, is_message, joined, portions, split
from nissa.otel.replay.stored import mark_delivered, segment_count, stored_frames
from nissa.otel.replay.wire import Sender, detected_protocol
from nissa.printable import printable
from nissa.recordings.jsonl_reader import DamagedLine, JsonLine

_MOST_LINES: Final = 512
"""Lines of spans or log records, which hold one each, that go as one request."""
MOST_REASON: Final = 500
"""Maximum length of a reason, which may be the text of a server."""
MOST_REASONS: Final = 20
"""Maximum number of reasons per signal; further ones are left out."""
PATIENCE: Final = 60.0
"""Seconds for which a request is tried again by default."""


@dataclass(slots=True)
class Signal:
    """What became of one signal.

    Args:
        what: What its items are.
        files: How many files it has.
        found: Items in them.
        sent: Items that the collector took.
        requests: Number of requests that were sent to it, failed attempts included.
        endpoint: Where they went; None where nothing was sent.
        protocol: The same.
        reasons: Why items were not sent, each once.
    """

    what: str
    files: int
    found: int = 0
    sent: int = 0
    requests: int = 0
    endpoint: str | None = None
    protocol: str | None = None
    reasons: list[str] = field(default_factory=list)

    def failed(self, reason: str) -> None:
        """Note why items were not sent."""
        safe = printable(reason, MOST_REASON)
        if safe not in self.reasons and len(self.reasons) < MOST_REASONS:
            self.reasons.append(safe)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a replay.

    Args:
        directory: The folder.
        dry_run: Whether it was only counted.
        signals: By name; what has no files is there with zeros.
        skipped: Lines that could not be sent.
    """

    directory: str
    dry_run: bool
    signals: dict[str, Signal]
    skipped: tuple[Skipped, ...]

    @property
    def complete(self) -> bool:
        """Whether all arrived, or would be sent: apart from a last line that is unfinished."""
        sent = self.dry_run or all(each.found == each.sent for each in self.signals.values())
        return sent and all(each.cut for each in self.skipped)


def replay(
    folder: Path,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    patience: float = PATIENCE,
    dry_run: bool = False,
) -> Replayed:
    """Send what the OTLP JSON files and spools of a folder hold, with the times and ids that it has.

    Args:
        folder: Of a run; the file that a collector wrote is as good. The frames of spools are sent as they are stored,
            delivered ones too. If all of them arrive where they were bound for, later starts do not send them again.
        endpoint: OTLP endpoint for all signals; the one that ``OTEL_EXPORTER_OTLP_*`` name if None.
        protocol: ``grpc``, ``http/protobuf`` or ``http/json``; what ``OTEL_*`` say, else found out by asking, if None.
        patience: Seconds for which a request is tried again where the collector is away or busy.
        dry_run: Count, and send nothing.

    Raises:
        ConfigurationError: The folder has no such files, or nothing says where to send them.
    """
    files = files_of(folder)
    damaged: list[DamagedLine] = []
    found: dict[str, Signal] = {
        signal: Signal(WHAT[signal], len(files[signal]) + segment_count(folder, signal)) for signal in SIGNALS
    }
    settings = {} if dry_run else _settings(endpoint, protocol)
    skipped: list[Skipped] = []
    for signal in SIGNALS:
        report = found[signal]
        lines = (line for path in files[signal] for line in lines_of(path, signal, damaged))
        stored = stored_frames(folder, signal, skipped)
        if dry_run:
            report.found = sum(count(signal, line.value) for line in lines) + sum(frame.items for frame in stored)
        elif report.files:
            _replay(settings[signal], lines, stored, report, patience)
    done = Replayed(str(folder), dry_run, found, (*map(Skipped.of, damaged), *skipped))
    if done.complete and not dry_run:
        mark_delivered(folder, {signal: settings[signal].destination for signal in SIGNALS})
    return done


def _settings(endpoint: str | None, protocol: str | None) -> dict[str, OtlpSettings]:
    """Return the destination of each signal; the protocol is detected if only an endpoint is given.

    Raises:
        ConfigurationError: Nothing says where to send, or a variable has a value that cannot be used.
    """
    if protocol is not None and endpoint is None:
        raise ConfigurationError("--protocol says what --endpoint speaks; give both.")
    if endpoint is None and not any(map(os.environ.get, ENDPOINTS)):
        raise ConfigurationError(
            "Nothing says where to send it: give --endpoint, such as http://localhost:4317, or set "
            "OTEL_EXPORTER_OTLP_ENDPOINT."
        )
    if endpoint is not None and protocol is None and not os.environ.get(f"{PREFIX}PROTOCOL"):
        protocol = detected_protocol(endpoint)
    return {signal: OtlpSettings.from_environment(signal, endpoint=endpoint, protocol=protocol) for signal in SIGNALS}


def _replay(
    settings: OtlpSettings, lines: Iterable[JsonLine], stored: Iterable[Frame], report: Signal, patience: float
) -> None:
    signal, sender = settings.signal, Sender(settings, patience)
    report.endpoint, report.protocol = settings.address, settings.protocol
    try:
        hopeless = False
        for request in _requests(signal, lines):
            report.found += count(signal, request)
            if hopeless:  # counted all the same, to say how many are missing
                continue
            result = _send(sender, report, request)
            if result.outcome is Outcome.REFUSED and (rest := _messages(signal, request)) is not None:
                result = _send(sender, report, rest)
            hopeless = result.endpoint_fault
        for frame in stored:
            report.found += frame.items
            if not hopeless:
                hopeless = _count(sender.send_stored(frame.payload), report, frame.items).endpoint_fault
    finally:
        report.requests = sender.requests
        sender.close()


def _send(sender: Sender, report: Signal, request: Request) -> SendResult:
    """Send a request, and count what arrived."""
    return _count(sender.send(request), report, count(sender.settings.signal, request))


def _count(result: SendResult, report: Signal, items: int) -> SendResult:
    """Count what arrived of a request with so many items."""
    delivered = result.outcome is Outcome.DELIVERED
    rejected = min(result.rejected, items)
    report.sent += items - rejected if delivered else 0
    if not delivered or rejected:
        report.failed(result.reason or "the collector does not say why")
    return result


def _messages(signal: str, request: Request) -> Request | None:
    """Return what is OTLP of a refused request, so that one malformed line does not cost its neighbours.

    None if that is everything, or nothing.
    """
    parts = list(split(signal, request))
    good = [each for each in parts if is_message(signal, each)]
    return joined(signal, good) if 0 < len(good) < len(parts) else None


def _requests(signal: str, lines: Iterable[JsonLine]) -> Iterator[Request]:
    """Yield what is sent at once: many small lines together, and a large one in portions.

    Metrics are not put together: what Prometheus refuses, it refuses by the request.
    """
    held: list[JsonLine] = []
    size = 0
    for line in lines:
        if held and (signal == "metrics" or len(held) >= _MOST_LINES or size + len(line.raw) > MOST_BYTES):
            yield from _sent(signal, held)
            held, size = [], 0
        held.append(line)
        size += len(line.raw)
    if held:
        yield from _sent(signal, held)


def _sent(signal: str, held: list[JsonLine]) -> Iterator[Request]:
    first, *others = held
    if others:
        yield joined(signal, [line.value for line in held])
    elif len(first.raw) <= MOST_BYTES:
        yield first.value
    else:
        yield from portions(signal, first.value, MOST_BYTES)
