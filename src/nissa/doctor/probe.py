"""Probe of a network address: identify the listening protocol with plain sockets and timeouts."""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: nissa-doctor\r\nConnection: close\r\n\r\n"
_SETTINGS: Final = 4
"""Type of the SETTINGS frame, with which an HTTP/2 server begins; it is the byte at index 3 (RFC 9113, 4.1)."""
_AFTER_HANDSHAKE: Final = 0.3
"""Time to wait for a TLS alert about a missing client certificate, seconds."""
# Reasons of OpenSSL errors that mean that the response was not TLS.
_NOT_TLS: Final = {
    "WRONG_VERSION_NUMBER",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNEXPECTED_EOF_WHILE_READING",
}


class ServerKind(StrEnum):
    """Protocol of the server, or the reason why it could not be identified."""

    UNKNOWN_HOST = "unknown host"
    REFUSED = "refused"
    NO_ROUTE = "no route"
    NO_ANSWER = "no answer"
    SILENT = "silent"
    HTTP1 = "HTTP/1.1"
    HTTP2 = "HTTP/2"
    TLS = "TLS"
    NO_TLS = "no TLS"
    BAD_CERTIFICATE = "bad certificate"
    BAD_FILE = "bad file"
    WANTS_CERTIFICATE = "wants a certificate"
    OTHER = "something else"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of a probe, with the message of the operating system or of OpenSSL."""

    kind: ServerKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """TLS files: CA bundle, client key and client certificate.

    Without ``authorities`` the system's CA bundle is used. Without ``certificate`` no client certificate is sent.
    """

    authorities: str | None = None
    key: str | None = None
    certificate: str | None = None


def probe(host: str, port: int, *, secure: bool, tls_files: TlsFiles, timeout: float) -> ProbeResult:
    """Connect and identify the protocol.

    Args:
        host: Host name or IP address.
        port: TCP port.
        secure: Use TLS.
        tls_files: TLS files.
        timeout: Timeout of each network wait, seconds; a probe has three of them at most.
    """
    try:
        with socket.create_connection((host, port), timeout) as connection:
            return _secure(connection, host, tls_files) if secure else _plain(connection, host, port, timeout)
    except socket.gaierror as error:
        return ProbeResult(ServerKind.UNKNOWN_HOST, error.strerror or "")
    except UnicodeError:  # The name cannot be encoded as a host name.
        return ProbeResult(ServerKind.UNKNOWN_HOST, "not a valid name")
    except ConnectionRefusedError:
        return ProbeResult(ServerKind.REFUSED)
    except TimeoutError:
        return ProbeResult(ServerKind.NO_ANSWER)
    except OSError as error:
        return ProbeResult(ServerKind.NO_ROUTE, error.strerror or str(error))


def _secure(connection: socket.socket, host: str, tls_files: TlsFiles) -> ProbeResult:
    try:
        context = ssl.create_default_context(cafile=tls_files.authorities)
        if tls_files.certificate:
            context.load_cert_chain(tls_files.certificate, tls_files.key)
    except OSError as error:  # ssl.SSLError is a subclass of OSError.
        return ProbeResult(ServerKind.BAD_FILE, error.strerror or str(error))
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with context.wrap_socket(connection, server_hostname=host) as wrapped:
            return _after_handshake(wrapped)
    except ssl.SSLCertVerificationError as error:
        return ProbeResult(ServerKind.BAD_CERTIFICATE, error.verify_message)
    except ssl.SSLError as error:
        return _tls_error(error)
    except TimeoutError:
        return ProbeResult(ServerKind.SILENT)
    except OSError as error:
        return ProbeResult(ServerKind.NO_TLS, error.strerror or str(error))


def _after_handshake(wrapped: ssl.SSLSocket) -> ProbeResult:
    """Wait for a late TLS alert: with TLS 1.3 the server verifies the client certificate after the client has finished.

    Raises:
        ssl.SSLError: The server rejected the client certificate.
    """
    wrapped.settimeout(_AFTER_HANDSHAKE)
    with suppress(TimeoutError):
        wrapped.recv(1)
    return ProbeResult(ServerKind.TLS, wrapped.selected_alpn_protocol() or "")


def _tls_error(error: ssl.SSLError) -> ProbeResult:
    reason = error.reason or ""
    if "CERTIFICATE_REQUIRED" in reason or "ALERT_BAD_CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
        return ProbeResult(ServerKind.WANTS_CERTIFICATE, reason)
    return ProbeResult(ServerKind.NO_TLS if reason in _NOT_TLS or "EOF" in reason else ServerKind.OTHER, reason)


def _plain(connection: socket.socket, host: str, port: int, timeout: float) -> ProbeResult:
    answer = b""
    try:
        connection.sendall(_REQUEST)
        answer = connection.recv(256)
    except TimeoutError:
        return ProbeResult(ServerKind.SILENT)
    except OSError:
        pass  # A TLS server may close a plain connection; the TLS attempt below detects that.
    # Test TLS before interpreting the response: TLS servers often answer a plain request with HTTP status 400.
    if _speaks_tls(host, port, timeout):
        return ProbeResult(ServerKind.TLS)
    if answer.startswith(b"HTTP/1."):
        return ProbeResult(ServerKind.HTTP1)
    if len(answer) > _SETTINGS and answer[3] == _SETTINGS:
        return ProbeResult(ServerKind.HTTP2)
    return ProbeResult(ServerKind.OTHER)


def _speaks_tls(host: str, port: int, timeout: float) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # Verification is unnecessary: this only detects TLS, and sends no data.
    try:
        with socket.create_connection((host, port), timeout) as connection, context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in (error.reason or "")
    except OSError:
        return False
