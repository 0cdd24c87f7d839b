"""What listens at an address, in words that say what to change: seen with sockets alone, in bounded time."""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: nissa-doctor\r\nConnection: close\r\n\r\n"
_SETTINGS: Final = 4
"""Type of the frame that a server of HTTP/2 begins with, at the fourth byte."""
_AFTER_HANDSHAKE: Final = 0.3
"""Seconds in which a server that asks for a certificate of ours says that it got none."""
_NOT_TLS: Final = {
    "WRONG_VERSION_NUMBER",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNEXPECTED_EOF_WHILE_READING",
}


class Kind(StrEnum):
    """What listens, or why nothing can be said."""

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
class Seen:
    """What was seen, with what the system says of it."""

    kind: Kind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Files for TLS; None is the system's authorities, and no certificate of ours."""

    authorities: str | None = None
    key: str | None = None
    certificate: str | None = None


def look(host: str, port: int, *, secure: bool, identity: Identity, timeout: float) -> Seen:
    """Connect and see what answers; each of at most three waits takes at most so many seconds."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            return _secure(connection, host, identity) if secure else _plain(connection, host, port, timeout)
    except socket.gaierror as error:
        return Seen(Kind.UNKNOWN_HOST, error.strerror or "")
    except UnicodeError:  # no name can be like this
        return Seen(Kind.UNKNOWN_HOST, "not a valid name")
    except ConnectionRefusedError:
        return Seen(Kind.REFUSED)
    except TimeoutError:
        return Seen(Kind.NO_ANSWER)
    except OSError as error:
        return Seen(Kind.NO_ROUTE, error.strerror or str(error))


def _secure(connection: socket.socket, host: str, identity: Identity) -> Seen:
    try:
        context = ssl.create_default_context(cafile=identity.authorities)
        if identity.certificate:
            context.load_cert_chain(identity.certificate, identity.key)
    except OSError as error:  # errors of ssl are some of these
        return Seen(Kind.BAD_FILE, error.strerror or str(error))
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with context.wrap_socket(connection, server_hostname=host) as wrapped:
            return _after_handshake(wrapped)
    except ssl.SSLCertVerificationError as error:
        return Seen(Kind.BAD_CERTIFICATE, error.verify_message)
    except ssl.SSLError as error:
        return _tls_error(error)
    except TimeoutError:
        return Seen(Kind.SILENT)
    except OSError as error:
        return Seen(Kind.NO_TLS, error.strerror or str(error))


def _after_handshake(wrapped: ssl.SSLSocket) -> Seen:
    """With TLS 1.3 a server looks at our certificate after we have finished, and complains then."""
    wrapped.settimeout(_AFTER_HANDSHAKE)
    with suppress(TimeoutError):
        wrapped.recv(1)
    return Seen(Kind.TLS, wrapped.selected_alpn_protocol() or "")


def _tls_error(error: ssl.SSLError) -> Seen:
    reason = error.reason or ""
    if "CERTIFICATE_REQUIRED" in reason or "ALERT_BAD_CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
        return Seen(Kind.WANTS_CERTIFICATE, reason)
    return Seen(Kind.NO_TLS if reason in _NOT_TLS or "EOF" in reason else Kind.OTHER, reason)


def _plain(connection: socket.socket, host: str, port: int, timeout: float) -> Seen:
    answer = b""
    try:
        connection.sendall(_REQUEST)
        answer = connection.recv(256)
    except TimeoutError:
        return Seen(Kind.SILENT)
    except OSError:
        pass  # it hung up on what is no TLS, perhaps
    if _speaks_tls(host, port, timeout):
        return Seen(Kind.TLS)
    if answer.startswith(b"HTTP/1."):
        return Seen(Kind.HTTP1)
    if len(answer) > _SETTINGS and answer[3] == _SETTINGS:
        return Seen(Kind.HTTP2)
    return Seen(Kind.OTHER)


def _speaks_tls(host: str, port: int, timeout: float) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only whether there is TLS is of interest, and nothing is sent
    try:
        with socket.create_connection((host, port), timeout) as connection, context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in (error.reason or "")
    except OSError:
        return False
