"""A whole replay: each file in its order, counted, and what could not be sent said by number and reason."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nissa.errors import ConfigurationError, UnknownNameError
from nissa.journal import SIGNALS
from nissa.otel.export.encoding import MAX_REQUEST_BYTES as MOST_BYTES
from nissa.otel.export.ways import asked_for, protocol
from nissa.otel.replay.lines import Skipped, files_of, lines_of
from nissa.otel.replay.requests import WHAT, Request, count, is_message, joined, portions, split
from nissa.otel.replay.wire import Sender, Verdict, spoken
from nissa.otel.setup import ENDPOINTS
from nissa.printable import printable
from nissa.recordings.jsonl_reader import DamagedLine, JsonLine

_MOST_LINES: Final = 512
"""Lines of spans or log records, which hold one each, that go as one request."""
_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
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
        requests: How often it was asked, attempts in vain included.
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
        """Whether all arrived, or would be sent: but for a last line that nobody can finish."""
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
    """Send what the OTLP JSON files of a folder hold, with the times and ids that it has.

    Args:
        folder: Of a run; the file that a collector wrote is as good.
        endpoint: OTLP endpoint for all signals; the one that ``OTEL_EXPORTER_OTLP_*`` name if None.
        protocol: ``grpc`` or ``http/protobuf``; what ``OTEL_*`` say, else found out by asking, if None.
        patience: Seconds for which a request is tried again where the collector is away or busy.
        dry_run: Count, and send nothing.

    Raises:
        ConfigurationError: The folder has no such files, or nothing says where to send them.
    """
    files = files_of(folder)
    damaged: list[DamagedLine] = []
    found: dict[str, Signal] = {signal: Signal(WHAT[signal], len(files[signal])) for signal in SIGNALS}
    with asked_for(endpoint, protocol):
        if not dry_run:
            _settle(endpoint)
        for signal, told in found.items():
            lines = (line for path in files[signal] for line in lines_of(path, signal, damaged))
            if dry_run:
                told.found = sum(count(signal, line.value) for line in lines)
            elif files[signal]:
                _replay(signal, lines, told, patience)
    return Replayed(str(folder), dry_run, found, tuple(map(Skipped.of, damaged)))


def _settle(endpoint: str | None) -> None:
    """See that something says where to send, and where only an endpoint was given, find out what it speaks."""
    if not any(map(os.environ.get, ENDPOINTS)):
        raise ConfigurationError(
            "Nothing says where to send it: give --endpoint, such as http://localhost:4317, or set "
            "OTEL_EXPORTER_OTLP_ENDPOINT."
        )
    if endpoint is not None and not os.environ.get(_PROTOCOL):
        os.environ[_PROTOCOL] = spoken()


def _replay(signal: str, lines: Iterable[JsonLine], told: Signal, patience: float) -> None:
    sender = _sender(signal, patience)
    told.endpoint, told.protocol = sender.endpoint, sender.protocol
    try:
        hopeless = False
        for request, raw in _requests(signal, lines):
            items = count(signal, request)
            told.found += items
            if hopeless:  # counted all the same, to say how many are missing
                continue
            verdict = _send(signal, sender, told, request, raw)
            if verdict is Verdict.REFUSED and raw is None and (rest := _messages(signal, request)) is not None:
                verdict = _send(signal, sender, told, rest, None)
            hopeless = verdict is Verdict.HOPELESS
    finally:
        told.requests = sender.requests
        sender.close()


def _send(signal: str, sender: Sender, told: Signal, request: Request, raw: bytes | None) -> Verdict:
    """Send a request, and count what arrived."""
    items, answer = count(signal, request), sender.send(request, raw)
    taken = answer.verdict is Verdict.TAKEN
    rejected = min(max(0, answer.rejected), items)
    told.sent += items - rejected if taken else 0
    if not taken or rejected:
        told.failed(answer.reason or "the collector does not say why")
    return answer.verdict


def _messages(signal: str, request: Request) -> Request | None:
    """Return what is OTLP of a refused request, so that one malformed line does not cost its neighbours.

    None if that is everything, or nothing.
    """
    parts = list(split(signal, request))
    good = [each for each in parts if is_message(signal, each)]
    return joined(signal, good) if 0 < len(good) < len(parts) else None


def _sender(signal: str, patience: float) -> Sender:
    spoken = protocol("otlp", signal.upper(), os.environ) or ""
    try:
        return Sender(signal, spoken, patience)
    except KeyError:
        raise UnknownNameError("protocol", spoken, ("grpc", "http/protobuf")) from None
    except Exception as error:
        raise ConfigurationError(f"OTEL_* describe no exporter for {signal}: {error}") from error


def _requests(signal: str, lines: Iterable[JsonLine]) -> Iterator[tuple[Request, bytes | None]]:
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


def _sent(signal: str, held: list[JsonLine]) -> Iterator[tuple[Request, bytes | None]]:
    first, *others = held
    if others:
        yield joined(signal, [line.value for line in held]), None
    elif len(first.raw) <= MOST_BYTES:
        yield first.value, first.raw
    else:
        yield from ((portion, None) for portion in portions(signal, first.value, MOST_BYTES))
