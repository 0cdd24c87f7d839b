"""The way of one signal to a collector: over HTTP as JSON, over gRPC as protobuf, again where the collector is busy.

The exporters are the SDK's, built from the environment, so that endpoints, headers, certificates and compression are
theirs. What is used of their private surface is what `probing` uses.
"""

import json
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nissa.otel.export.probing import attempt, build_exporter
from nissa.otel.export.ways import GRPC, HTTP
from nissa.otel.random_isolation import PRIVATE
from nissa.otel.replay.requests import Request, body, message
from nissa.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TIMEOUT: Final = 10.0
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_JITTER: Final = 0.2
_LEAST_PAUSE: Final = 0.1
_ATTEMPT: Final = 3 * _TIMEOUT
"""Seconds for a whole HTTP exchange; `_TIMEOUT` limits each wait within it, so a server that drips would never end."""
_MOST_REASON: Final = 300
_LOOK: Final = 3.0
"""Seconds that a server has to show which protocol it speaks."""

# As the specification of OTLP has them.
_BUSY_STATUS: Final = frozenset({429, 502, 503, 504})
_BUSY_CODES: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
# What would be said of each request that follows.
_HOPELESS_STATUS: Final = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405, 415})
_HOPELESS_CODES: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})
_SPEAKS_GRPC: Final = frozenset({"OK", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}) | _HOPELESS_CODES


class Verdict(Enum):
    """What a collector makes of a request."""

    TAKEN = auto()
    BUSY = auto()
    """Not now."""
    REFUSED = auto()
    """Not this one."""
    HOPELESS = auto()
    """None of these."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a collector said to a request.

    Args:
        reason: What it says of a failure, or of what it rejected of a request that it took.
        rejected: How many items of a request that it took it did not.
        pause: Seconds after which it wants to be asked again, None where it does not say.
    """

    verdict: Verdict
    reason: str = ""
    rejected: int = 0
    pause: float | None = None


class Sender:
    """Sends the requests of one signal.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        protocol: ``grpc`` or ``http/protobuf``; over HTTP, JSON is sent as it is.
        patience: Seconds for which a request is tried again where the collector is away or busy.
    """

    def __init__(self, signal: str, protocol: str, patience: float) -> None:
        self.protocol = protocol
        self.requests = 0
        self._signal = signal
        self._patience = patience
        self._exporter = build_exporter(signal, protocol)
        self._post: Callable[[Request, bytes | None], Answer] = self._over_grpc if protocol == GRPC else self._over_http

    @property
    def endpoint(self) -> str:
        """Where it sends to, without name and password, and without the path that a signal's requests have anyway."""
        scheme, separator, rest = str(self._exporter._endpoint).rpartition("://")  # noqa: SLF001 - see above, and below
        host, slash, path = rest.partition("/")
        return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}".removesuffix(f"/v1/{self._signal}")

    def send(self, request: Request, raw: bytes | None = None) -> Answer:
        """Send a request, again and again while the collector is busy; ``raw`` is its JSON where that is known."""
        deadline = monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            self.requests += 1
            answer = self._post(request, raw)
            if answer.verdict is not Verdict.BUSY:
                return answer
            own = pause * PRIVATE.uniform(1 - _JITTER, 1 + _JITTER)
            wait = own if answer.pause is None else max(answer.pause, _LEAST_PAUSE)
            if monotonic() + wait > deadline:
                return Answer(Verdict.HOPELESS, f"{answer.reason}; tried for {self._patience:g} s")
            sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def close(self) -> None:
        """End the connection."""
        self._exporter.shutdown()

    def _over_http(self, request: Request, raw: bytes | None) -> Answer:
        client = self._exporter._client  # noqa: SLF001
        data = client._compress(body(request) if raw is None else raw)  # noqa: SLF001
        result = _within(
            _ATTEMPT,
            lambda: client._transport.request(  # noqa: SLF001
                "POST",
                self._exporter._endpoint,  # noqa: SLF001
                headers={**client._headers, "Content-Type": "application/json"},  # noqa: SLF001
                data=data,
                timeout=_TIMEOUT,
            ),
        )
        if result is None:
            return Answer(Verdict.HOPELESS, f"the answer did not end within {_ATTEMPT:g} s")
        if result.error is not None:
            away = client._transport.is_connection_error(result.error)  # noqa: SLF001
            return Answer(Verdict.BUSY if away else Verdict.HOPELESS, f"{type(result.error).__name__}: {result.error}")
        return _http_answer(result)

    def _over_grpc(self, request: Request, _: bytes | None) -> Answer:
        import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 - only where it is spoken

        try:
            asked = message(self._signal, request)
        except ValueError as error:
            return Answer(Verdict.REFUSED, f"it is no OTLP: {error}")
        try:
            said = self._exporter._client.Export(  # noqa: SLF001
                request=asked,
                metadata=self._exporter._headers,  # noqa: SLF001
                timeout=_TIMEOUT,
            )
        except grpc.RpcError as error:
            return _grpc_answer(error)
        except Exception as error:  # noqa: BLE001 - headers that cannot be sent, for example
            return Answer(Verdict.HOPELESS, f"{type(error).__name__}: {error}")
        partial = said.partial_success
        rejected = next((int(number) for field, number in partial.ListFields() if field.name.startswith("rejected")), 0)
        return Answer(Verdict.TAKEN, partial.error_message, rejected)


def _within(seconds: float, call: "Callable[[], T]") -> "T | None":
    """Return the result of a call; None if it raises or takes longer, which leaves it behind on a thread of its own."""
    results: SimpleQueue[T | None] = SimpleQueue()

    def run() -> None:
        found = None
        try:
            found = call()
        finally:
            results.put(found)

    Thread(target=run, name="nissa-replay", daemon=True).start()
    try:
        return results.get(timeout=seconds)
    except Empty:
        return None


def _http_answer(result: Any) -> Answer:
    status, reason = int(result.status_code), f"{result.status_code} {result.reason or ''}".strip()
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return _taken(result)
    if status in _BUSY_STATUS:
        return Answer(Verdict.BUSY, reason, pause=_seconds(result.headers().get("Retry-After")))
    said = f"{reason}: {_text(result)}".removesuffix(": ")
    return Answer(Verdict.HOPELESS if status in _HOPELESS_STATUS else Verdict.REFUSED, said)


def _taken(result: Any) -> Answer:
    try:
        partial = json.loads(result.content() or b"{}").get("partialSuccess") or {}
        rejected = next((int(number) for name, number in partial.items() if name.startswith("rejected")), 0)
        return Answer(Verdict.TAKEN, printable(str(partial.get("errorMessage", "")), _MOST_REASON), rejected)
    except (
        ValueError,
        AttributeError,
        TypeError,
        OverflowError,
        RecursionError,
    ):  # an answer that is no JSON says nothing of what was rejected
        return Answer(Verdict.TAKEN)


def _text(result: Any) -> str:
    return " ".join(bytes(result.content()).decode(errors="replace").split())[:200]


def _seconds(header: str | None) -> float | None:
    """Return what ``Retry-After`` says: seconds, or a date."""
    if not header:
        return None
    try:
        if header.strip().isdigit():
            return float(header)
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def _grpc_answer(error: Any) -> Answer:
    code, reason = str(error.code().name), f"{error.code().name} {error.details() or ''}".strip()
    pause = _pause(error)
    if code in _BUSY_CODES or (code == "RESOURCE_EXHAUSTED" and pause is not None):
        return Answer(Verdict.BUSY, reason, pause=pause)
    return Answer(Verdict.HOPELESS if code in _HOPELESS_CODES else Verdict.REFUSED, reason)


def _pause(error: Any) -> float | None:
    """Return the pause that a collector asks for in the details of a gRPC status."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415 - as above
    from google.rpc import (  # type: ignore[import-untyped]  # noqa: PLC0415 - only where it is spoken
        error_details_pb2,
        status_pb2,
    )

    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            try:
                details = status_pb2.Status.FromString(value).details
            except DecodeError:
                return None
            for detail in details:
                found = error_details_pb2.RetryInfo()
                if detail.Unpack(found):
                    return max(0.0, float(found.retry_delay.seconds + found.retry_delay.nanos / 1e9))
    return None


def spoken() -> str:
    """Return the protocol that the general endpoint speaks, found out by empty exports; gRPC where nothing answers."""
    return HTTP if _asked(GRPC) not in _SPEAKS_GRPC and _asked(HTTP) is not None else GRPC


def _asked(protocol: str) -> str | None:
    try:
        exporter = build_exporter("traces", protocol)
    except Exception:  # noqa: BLE001 - it is told when the exporter is built that is used
        return None
    found = _within(3 * _LOOK, lambda: attempt("traces", protocol, exporter, _LOOK).status)
    exporter.shutdown()
    return found
