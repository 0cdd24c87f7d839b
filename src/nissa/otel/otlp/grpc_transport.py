"""OTLP over gRPC: serialized requests through a generic method, so that nothing is encoded again."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # it has no types of its own
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # the same
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # the same

from nissa.errors import ConfigurationError
from nissa.otel.otlp import credentials
from nissa.otel.otlp.messages import method, partial_success
from nissa.otel.otlp.outcome import Outcome, SendResult, of_code
from nissa.otel.otlp.redaction import Redactor
from nissa.otel.otlp.settings import OtlpSettings
from nissa.version import VERSION

_OPTIONS: Final = (
    ("grpc.primary_user_agent", f"nissa/{VERSION}"),
    # A channel of its own that is opened again also connects again at once. A connection shared with other channels
    # would wait for up to two minutes after an outage.
    ("grpc.use_local_subchannel_pool", 1),
)
_FORK_SECONDS: Final = 0.2
"""Longest time for which a fork waits until no request is under way."""
_FORK_POLL_SECONDS: Final = 0.001
_COMPRESSIONS: Final = {"gzip": grpc.Compression.Gzip, "none": grpc.Compression.NoCompression}


class GrpcTransport:
    """Sends the requests of one signal through one channel.

    Args:
        settings: Protocol ``grpc``.

    Raises:
        ConfigurationError: The credential provider cannot be used.
    """

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._redactor = Redactor(settings.secrets())
        self._metadata = tuple(settings.headers.items())
        self._credentials = None if settings.insecure else _channel_credentials(settings)
        self._closed = False
        self._calling = False
        self._interrupted = False
        self._channel: Any = self._open()
        _transports.add(self)

    def send(self, body: bytes, timeout: float) -> SendResult:
        """Send an uncompressed request and return the result."""
        try:
            response = self._call(body, timeout)
        except grpc.RpcError as error:
            return self._failure(error)
        except Exception as error:  # noqa: BLE001 - gRPC raises ValueError for a closed channel and for invalid metadata
            reason = self._redactor.clean(f"{type(error).__name__}: {error}")
            if self._closed:
                return SendResult(Outcome.RETRY, "the client is closed")
            return SendResult(Outcome.REFUSED, reason, endpoint_fault=True)
        rejected, reason = partial_success(self._settings.signal, response, "application/x-protobuf")
        return SendResult(Outcome.DELIVERED, self._redactor.clean(reason), rejected, status="OK")

    def close(self) -> None:
        """Close the channel; a request under way is cancelled."""
        self._closed = True
        _transports.discard(self)
        self._channel.close()

    def interrupt(self) -> None:
        """Cancel a request under way, which is sent again after the fork; called by the thread that forks."""
        deadline = monotonic() + _FORK_SECONDS
        while self._calling and monotonic() < deadline:
            self._interrupted = True
            self._channel.close()
            sleep(_FORK_POLL_SECONDS)

    def _call(self, body: bytes, timeout: float) -> bytes:
        """Return the response; a request that a fork interrupts is sent again."""
        deadline = monotonic() + timeout
        while True:
            self._calling = True  # set before the look at forks, so that a fork that begins after it waits
            try:
                if not _forks:
                    export = self._channel.unary_unary(method(self._settings.signal))
                    return bytes(export(body, timeout=max(0.0, deadline - monotonic()), metadata=self._metadata))
            except (grpc.RpcError, ValueError):
                if not self._interrupted or self._closed:
                    raise
                self._interrupted = False
                self._reopen()
            finally:
                self._calling = False
            sleep(_FORK_POLL_SECONDS)

    def _open(self) -> Any:
        target, compression = self._settings.target, _COMPRESSIONS[self._settings.compression]
        if self._credentials is None:
            return grpc.insecure_channel(target, compression=compression, options=_OPTIONS)
        return grpc.secure_channel(target, self._credentials, compression=compression, options=_OPTIONS)

    def _reopen(self) -> None:
        """Replace the channel: after a failed connection it would not try again for up to two minutes."""
        if self._credentials is not None and not self._settings.credential_provider:
            with suppress(ConfigurationError):  # Certificates of long trainings are renewed while they run.
                self._credentials = _channel_credentials(self._settings)
        old, self._channel = self._channel, self._open()
        old.close()
        if self._closed:  # by another thread, which may have seen the old channel only
            self._channel.close()

    def _failure(self, error: Any) -> SendResult:
        code, pause = str(error.code().name), _pause(error.trailing_metadata() or ())
        outcome, endpoint_fault = of_code(code, self._settings.retryable_codes, pause)
        if code == grpc.StatusCode.UNAVAILABLE.name:
            self._reopen()
        reason = self._redactor.clean(f"{code} {error.details() or ''}")
        return SendResult(
            outcome,
            reason,
            retry_after=pause if outcome is Outcome.RETRY else None,
            endpoint_fault=endpoint_fault,
            status=code,
        )


def _channel_credentials(settings: OtlpSettings) -> Any:
    if settings.credential_provider:
        return credentials.load(settings.credential_provider, grpc.ChannelCredentials)
    files = (settings.certificate, settings.client_key, settings.client_certificate)
    try:
        contents = [Path(file).read_bytes() if file else None for file in files]
    except OSError as error:
        raise ConfigurationError(f"The TLS file {error.filename} cannot be read: {error.strerror}.") from error
    return grpc.ssl_channel_credentials(*contents)


def _pause(metadata: Iterable[tuple[str, Any]]) -> float | None:
    """Return the pause that a receiver asks for: ``RetryInfo`` in the status details, or by itself."""
    with suppress(DecodeError):
        for name, value in metadata:
            for info in _retry_infos(name, value):
                return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))
    return None


def _retry_infos(name: str, value: bytes) -> Iterator[Any]:
    if name == "google.rpc.retryinfo-bin":
        yield error_details_pb2.RetryInfo.FromString(value)
    for packed in status_pb2.Status.FromString(value).details if name == "grpc-status-details-bin" else ():
        found = error_details_pb2.RetryInfo()
        if packed.Unpack(found):
            yield found


# A fork during a call has gRPC's core print a line on standard error and leave both processes unprepared for the fork.

_transports: Final[set[GrpcTransport]] = set()
_forks: Final[deque[None]] = deque()
"""One element for each fork under way. No request begins until it is empty."""


def _before_fork() -> None:
    _forks.append(None)
    for transport in _transports.copy():
        transport.interrupt()


def _after_fork_in_parent() -> None:
    with suppress(IndexError):  # this module may have been imported during the fork
        _forks.pop()


def _after_fork_in_child() -> None:
    """Forget the channels and the forks of the parent process."""
    _forks.clear()
    _transports.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
