"""Sending of requests of one signal, with retries where the collector is away or busy."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, sleep
from typing import Final, TypeVar

from nissa.errors import ConfigurationError
from nissa.otel.otlp.client import OtlpClient
from nissa.otel.otlp.outcome import Outcome, SendResult
from nissa.otel.otlp.settings import GRPC, HTTP, OtlpSettings
from nissa.otel.replay.requests import Request, message
from nissa.random_ids import GENERATOR
from nissa.recordings.jsonl_reader import decompressed

T = TypeVar("T")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_JITTER: Final = 0.2
_LEAST_PAUSE: Final = 0.1
_ATTEMPT: Final = 3.0
"""Time limit of an attempt, as a multiple of its timeout: over HTTP a timeout limits each wait of an attempt by itself."""
_DETECTION_SECONDS: Final = 3.0
"""Timeout of an empty export that shows which protocol a server speaks."""
_ANSWERS_OF_GRPC: Final = frozenset(
    {"OK", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"}
)


class Sender:
    """Sends the requests of one signal.

    Args:
        settings: Destination.
        patience: Seconds for which a request is tried again where the collector is away or busy.

    Attributes:
        requests: Number of attempts.

    Raises:
        ConfigurationError: A credential provider or a TLS file cannot be used.
    """

    def __init__(self, settings: OtlpSettings, patience: float) -> None:
        self.settings = settings
        self.requests = 0
        self._patience = patience
        self._client = OtlpClient(settings)

    def send(self, request: Request) -> SendResult:
        """Send a request, and again while the collector is away or busy.

        A result to retry is returned after the patience has ended; its ``endpoint_fault`` is set, because the requests
        that follow would wait in vain too.
        """
        try:
            payload = message(self.settings.signal, request).SerializeToString()
        except ValueError as error:
            return SendResult(Outcome.REFUSED, f"it is no OTLP: {error}")
        return self._send(payload, gzipped=False)

    def send_stored(self, payload: bytes) -> SendResult:
        """Send a compressed request exactly as a spool stores it; compare `send`."""
        try:
            whole = decompressed(payload)
        except (ValueError, zlib.error) as error:
            return SendResult(Outcome.REFUSED, f"it is no OTLP: {error}")
        del whole  # only verified: a client that expands it must not fail, nor take all memory
        return self._send(payload, gzipped=True)

    def _send(self, payload: bytes, *, gzipped: bool) -> SendResult:
        deadline = monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            result = self._attempt(payload, gzipped=gzipped)
            if result.outcome is not Outcome.RETRY or result.endpoint_fault:
                return result
            own = pause * GENERATOR.uniform(1 - _JITTER, 1 + _JITTER)
            wait = own if result.retry_after is None else max(result.retry_after, _LEAST_PAUSE)
            if monotonic() + wait > deadline:
                reason = f"{result.reason}; tried for {self._patience:g} s"
                return replace(result, reason=reason, endpoint_fault=True)
            sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _attempt(self, payload: bytes, *, gzipped: bool) -> SendResult:
        self.requests += 1
        seconds = _ATTEMPT * self.settings.timeout
        result = _within(seconds, lambda: self._client.send(payload, gzipped=gzipped))
        if result is None:  # The client is still in use, so that nothing else can be sent.
            reason = f"the answer did not end within {seconds:g} s"
            return SendResult(Outcome.RETRY, reason, endpoint_fault=True)
        return result


def _within(seconds: float, call: Callable[[], T]) -> T | None:
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


def detected_protocol(endpoint: str) -> str:
    """Return the protocol that an endpoint speaks, detected by empty exports; gRPC if nothing answers."""
    if _status(endpoint, GRPC) not in _ANSWERS_OF_GRPC and _status(endpoint, HTTP) is not None:
        return HTTP
    return GRPC


def _status(endpoint: str, protocol: str) -> str | None:
    try:
        client = OtlpClient(OtlpSettings.from_environment("traces", endpoint=endpoint, protocol=protocol))
    except ConfigurationError:  # raised again, with its message, for the protocol that is used
        return None
    found = _within(_ATTEMPT * _DETECTION_SECONDS, lambda: client.send(b"", gzipped=False, timeout=_DETECTION_SECONDS))
    client.close()
    return found.status if found else None
