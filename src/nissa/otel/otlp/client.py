"""OTLP client: sends serialized export requests of one signal, one attempt per call."""

import gzip
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Final

from opentelemetry import context

from nissa.otel.otlp import messages
from nissa.otel.otlp.outcome import Outcome, SendResult
from nissa.otel.otlp.settings import GRPC, HTTP_JSON, OtlpSettings

if TYPE_CHECKING:
    from nissa.otel.otlp.grpc_transport import GrpcTransport
    from nissa.otel.otlp.http_transport import HttpTransport

LARGEST_REQUEST: Final = 64 * 1024 * 1024
"""Bytes of an uncompressed request; the limit of OTLP and of the official exporter. Collectors accept 4 MiB over gRPC."""
_LEVEL: Final = 6
_SUPPRESSED: Final = ("suppress_instrumentation", "suppress_http_instrumentation")
"""Context keys that instrumentations of ``requests``, ``urllib3`` and gRPC honour."""


class OtlpClient:
    """Client of one signal.

    ``send`` makes one attempt and never raises for what a receiver or the network does; the caller decides when to try
    again. One thread uses a client at a time; ``close`` may be called from any thread.

    Args:
        settings: Destination, security and format.

    Raises:
        ConfigurationError: A credential provider or a TLS file cannot be used.
    """

    def __init__(self, settings: OtlpSettings) -> None:
        self.settings = settings
        self._closed = False
        # Imported here and not at the first request: gRPC alone takes 0.1 s of interpreter time.
        messages.request(settings.signal)
        self._transport = _transport(settings)

    def send(self, payload: bytes, *, gzipped: bool = True, timeout: float | None = None) -> SendResult:
        """Send a request once.

        Args:
            payload: Serialized ``Export<Signal>ServiceRequest``.
            gzipped: The payload is compressed. ``http/protobuf`` with ``gzip`` then sends it exactly as it is.
            timeout: Time limit, seconds; the setting if None.
        """
        if self._closed:
            return SendResult(Outcome.RETRY, "the client is closed")
        seconds = self.settings.timeout if timeout is None else timeout
        if seconds <= 0:
            return SendResult(Outcome.RETRY, "no time left")
        try:
            body = self._body(payload, gzipped=gzipped)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            return SendResult(Outcome.REFUSED, f"the payload is not a request ({type(error).__name__})")
        if body is None:
            return SendResult(Outcome.REFUSED, f"the request is larger than {LARGEST_REQUEST // 2**20} MiB")
        token = context.attach(_without_instrumentation())
        try:
            return self._transport.send(body, seconds)
        finally:
            context.detach(token)

    def close(self) -> None:
        """Close the connection; later requests are not sent."""
        if not self._closed:
            self._closed = True
            self._transport.close()

    def _body(self, payload: bytes, *, gzipped: bool) -> bytes | None:
        """Return the body in the format of the protocol; None if the request is too large.

        Raises:
            ValueError: The payload is not a request.
            OSError, EOFError, zlib.error: The payload is not complete gzip data.
        """
        settings = self.settings
        if gzipped and settings.protocol not in (GRPC, HTTP_JSON) and settings.compression == "gzip":
            # The last four bytes of gzip data are the size of its content (RFC 1952, 2.3.1).
            return payload if int.from_bytes(payload[-4:], "little") <= LARGEST_REQUEST else None
        plain = _decompressed(payload) if gzipped else payload
        if len(plain) > LARGEST_REQUEST:
            return None
        if settings.protocol == GRPC:
            return plain  # The channel compresses.
        if settings.protocol == HTTP_JSON:
            plain = messages.to_json(messages.request(settings.signal, plain))
        return _compressed(plain, settings.compression)


def _transport(settings: OtlpSettings) -> "HttpTransport | GrpcTransport":
    kind = "grpc" if settings.protocol == GRPC else "http"
    module = import_module(f"nissa.otel.otlp.{kind}_transport")
    transport: HttpTransport | GrpcTransport = getattr(module, f"{kind.capitalize()}Transport")(settings)
    return transport


def _decompressed(payload: bytes) -> bytes:
    """Return the content of gzip data, or slightly more than the limit of it."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content = stream.decompress(payload, LARGEST_REQUEST + 1)
    if not stream.eof and len(content) <= LARGEST_REQUEST:
        raise EOFError
    return content


def _compressed(body: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(body, _LEVEL, mtime=0)
    return zlib.compress(body) if compression == "deflate" else body


def _without_instrumentation() -> context.Context:
    here = context.get_current()
    for key in _SUPPRESSED:
        here = context.set_value(key, True, here)
    return here
