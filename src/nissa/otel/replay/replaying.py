"""A whole replay: each file in its order, counted, and what could not be sent said by number and reason."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nissa.errors import ConfigurationError
from nissa.journal import SIGNALS
from nissa.otel.otlp import OtlpSettings, Outcome, SendResult
from nissa.otel.otlp.settings import ENDPOINTS, PREFIX
from nissa.otel.replay.lines import Skipped, files_of
from nissa.otel.replay.outgoing import Outgoing, outgoing
from nissa.otel.replay.requests import WHAT, count, is_message, joined, split
from nissa.otel.replay.wire import Sender, detected_protocol
from nissa.printable import printable

if TYPE_CHECKING:
    from nissa.recordings.jsonl_reader import DamagedLine

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
        files: How many files and spools it has.
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
    """Send what the OTLP JSON files and spools of a folder hold, with the times and ids that it has.

    A run that is still in progress is sent as far as it is written.

    Args:
        folder: Of a run; the file that a collector wrote is as good. Frames of a spool are sent as they are stored, also
            those that the run has delivered already.
        endpoint: OTLP endpoint for all signals; the one that ``OTEL_EXPORTER_OTLP_*`` name if None.
        protocol: ``grpc``, ``http/protobuf`` or ``http/json``; what ``OTEL_*`` say, else found out by asking, if None.
        patience: Seconds for which a request is tried again where the collector is away or busy.
        dry_run: Count, and send nothing.

    Raises:
        ConfigurationError: The folder has no such files, or nothing says where to send them.
    """
    files = files_of(folder)
    damaged: list[DamagedLine] = []
    found: dict[str, Signal] = {signal: Signal(WHAT[signal], len(files[signal])) for signal in SIGNALS}
    settings = {} if dry_run else _settings(endpoint, protocol)
    for signal, told in found.items():
        requests = outgoing(signal, files[signal], damaged)
        if dry_run:
            told.found = sum(each.items for each in requests)
        elif files[signal]:
            _replay(settings[signal], requests, told, patience)
    return Replayed(str(folder), dry_run, found, tuple(map(Skipped.of, damaged)))


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


def _replay(settings: OtlpSettings, requests: Iterable[Outgoing], told: Signal, patience: float) -> None:
    sender = Sender(settings, patience)
    told.endpoint, told.protocol = settings.address, settings.protocol
    try:
        hopeless = False
        for each in requests:
            told.found += each.items
            if hopeless:  # counted all the same, to say how many are missing
                continue
            result = _send(sender, told, each)
            if result.outcome is Outcome.REFUSED and (rest := _messages(settings.signal, each)) is not None:
                result = _send(sender, told, rest)
            hopeless = result.endpoint_fault
    finally:
        told.requests = sender.requests
        sender.close()


def _send(sender: Sender, told: Signal, each: Outgoing) -> SendResult:
    """Send a request, and count what arrived."""
    result = sender.send(each.request) if each.request is not None else sender.send_stored(each.payload)
    delivered = result.outcome is Outcome.DELIVERED
    rejected = min(result.rejected, each.items)
    told.sent += each.items - rejected if delivered else 0
    if not delivered or rejected:
        told.failed(result.reason or "the collector does not say why")
    return result


def _messages(signal: str, refused: Outgoing) -> Outgoing | None:
    """Return what is OTLP of a refused request, so that one malformed line does not cost its neighbours.

    None if that is everything, or nothing.
    """
    parts = list(split(signal, refused.request)) if refused.request is not None else []
    good = [each for each in parts if is_message(signal, each)]
    if not 0 < len(good) < len(parts):
        return None
    request = joined(signal, good)
    return Outgoing(count(signal, request), request)
