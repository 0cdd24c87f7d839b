"""OTLP over HTTP through ``requests``, which also applies proxies, ``NO_PROXY``, CA bundles and ``.netrc``."""

import logging
import netrc  # noqa: F401 - requests would import it with its first request, in the middle of training
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import requests
from google.rpc import status_pb2  # type: ignore[import-untyped]

from nissa.otel.otlp import credentials
from nissa.otel.otlp.messages import partial_success
from nissa.otel.otlp.outcome import Outcome, SendResult, of_status, retry_after_seconds
from nissa.otel.otlp.redaction import Redactor, public_url, secrets_of_headers, secrets_of_url
from nissa.otel.otlp.settings import HTTP_JSON, OtlpSettings
from nissa.version import VERSION

_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_SECRET_HEADERS: Final = ("authorization", "proxy-authorization", "cookie")
_DESCRIBING_HEADERS: Final = ("content-type", "date")
_BROKEN: Final = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_LARGEST_RESPONSE: Final = 64 * 1024
"""Bytes of a response that are read; receivers answer with a few."""


class _OwnRequests(logging.Filter):
    """Drops debug records of ``urllib3`` about our requests: they contain the URL, and its query may be a credential."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is about a request of somebody else."""
        del record
        return not getattr(self.here, "sending", False)


_own_requests: Final = _OwnRequests()


class HttpTransport:
    """Sends the requests of one signal to one URL.

    Args:
        settings: Protocol ``http/protobuf`` or ``http/json``.

    Raises:
        ConfigurationError: The credential provider cannot be used.
    """

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        provider = settings.credential_provider
        self._session = credentials.load(provider, requests.Session) if provider else requests.Session()
        self._session.verify = settings.certificate or True
        if settings.client_certificate:
            key = settings.client_key
            self._session.cert = (settings.client_certificate, key) if key else settings.client_certificate
        kind = "application/json" if settings.protocol == HTTP_JSON else "application/x-protobuf"
        # The variables may override the type and the agent, as with the official exporter.
        self._headers = {"content-type": kind, "user-agent": f"nissa/{VERSION}", **settings.headers}
        if settings.compression != "none":
            self._headers.setdefault("content-encoding", settings.compression)
        self._secrets = [*settings.secrets(), *_proxy_secrets(os.environ)]
        self._redactor = Redactor(self._secrets)
        logging.getLogger("urllib3.connectionpool").addFilter(_own_requests)

    def send(self, body: bytes, timeout: float) -> SendResult:
        """Post a body and return the result.

        A broken connection is opened again and the request repeated once, at once: receivers close idle connections.
        """
        _own_requests.here.sending = True
        try:
            return self._send(body, monotonic() + timeout, timeout)
        except Exception as error:  # noqa: BLE001 - also what an adapter of the session raises
            return self._failure(error, timeout)
        finally:
            _own_requests.here.sending = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _send(self, body: bytes, deadline: float, timeout: float) -> SendResult:
        try:
            return self._post(body, deadline, timeout)
        except requests.ConnectionError as error:
            left = deadline - monotonic()
            if left <= 0 or not isinstance(_innermost(error), _BROKEN):
                raise
        return self._post(body, deadline, left)  # outside of the handler, so that its error has no other as context

    def _post(self, body: bytes, deadline: float, timeout: float) -> SendResult:
        response = self._session.post(
            self._settings.endpoint,
            data=body,
            headers=self._headers,
            timeout=timeout,
            allow_redirects=False,
            stream=True,  # so that neither the size nor the duration of a response is unbounded
        )
        return self._result(response, _content(response, deadline))

    def _result(self, response: Any, content: bytes) -> SendResult:
        status = int(response.status_code)
        outcome, endpoint_fault = of_status(status)
        redactor = self._redactor_for(getattr(response.request, "headers", {}))
        kind = response.headers.get("content-type", "")
        headers = {
            name: redactor.clean(response.headers[name]) for name in _DESCRIBING_HEADERS if name in response.headers
        }
        reason, rejected = f"{status} {response.reason or ''}".strip(), 0
        if outcome is Outcome.DELIVERED and kind.lower().startswith("text/html"):
            # A login page, or a web server at the wrong port: no receiver has taken the telemetry.
            outcome, endpoint_fault, reason = Outcome.REFUSED, True, f"{reason}: a web page, not an OTLP receiver"
        elif outcome is Outcome.DELIVERED:
            rejected, reason = partial_success(self._settings.signal, content, kind)
        elif location := response.headers.get("location"):
            headers["location"] = redactor.clean(public_url(location))
            reason += f": redirects to {public_url(location)}"
        elif text := _text(content, kind):
            reason += f": {text}"
        return SendResult(
            outcome,
            redactor.clean(reason),
            rejected,
            retry_after_seconds(response.headers.get("retry-after")) if outcome is Outcome.RETRY else None,
            endpoint_fault,
            str(status),
            headers,
        )

    def _redactor_for(self, sent: Mapping[str, Any]) -> Redactor:
        """Return a redactor that also knows credentials that the session has added, from ``.netrc`` for example."""
        added = {name: _as_text(sent[name]) for name in _SECRET_HEADERS if name in sent and name not in self._headers}
        return Redactor([*self._secrets, *secrets_of_headers(added.values())]) if added else self._redactor

    def _failure(self, error: Exception, timeout: float) -> SendResult:
        reason = self._redactor.clean(_describe(error, timeout))
        if isinstance(error, ValueError):  # It cannot be sent at all; an invalid URL or header, for example.
            return SendResult(Outcome.REFUSED, reason, endpoint_fault=True)
        return SendResult(Outcome.RETRY, reason)


def _proxy_secrets(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        if name.lower() in _PROXIES:
            yield from secrets_of_url(value)


def _content(response: Any, deadline: float) -> bytes:
    """Return the decoded body, as far as it arrives in time and is not too large; the status counts without it."""
    found = b""
    # `read1` waits once at most; `read` would wait again and again for a receiver that sends byte by byte.
    read = getattr(response.raw, "read1", response.raw.read)
    with suppress(Exception):  # broken transfers and content encodings
        while monotonic() < deadline and len(found) < _LARGEST_RESPONSE:
            part = read(_LARGEST_RESPONSE, decode_content=True)
            if not part:
                response.raw.drain_conn()  # Nothing is left, but the connection is only returned to the pool by `read`.
                return found
            found += part
    response.close()  # The connection cannot be used again: the rest of the body is still in it.
    return found


def _text(content: bytes, kind: str) -> str:
    if "protobuf" in kind:  # a `google.rpc.Status`; its message is the second field
        return _status_message(content)
    return content.decode(errors="replace")[:2_000]


def _status_message(content: bytes) -> str:
    try:
        return str(status_pb2.Status.FromString(content).message)
    except Exception:  # noqa: BLE001 - the body is something else
        return ""


def _as_text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _describe(error: BaseException, timeout: float) -> str:
    """Return the innermost cause of an error; the outer ones repeat the URL."""
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {timeout:.3g} s"
    if isinstance(error, requests.Timeout | TimeoutError):
        return f"no answer within {timeout:.3g} s"
    cause = _innermost(error)
    through = "proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{through}certificate not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"{through}TLS failed: {cause.reason or 'no reason given'}"
    if isinstance(cause, OSError) and cause.strerror:
        file = f": {cause.filename}" if cause.filename else ""
        return f"{through}{cause.strerror}{file}"
    return f"{through}{type(cause).__name__}: {cause}"


def _innermost(error: BaseException) -> BaseException:
    """Follow causes, contexts, and the errors that ``urllib3`` keeps as reason or argument."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inside = (getattr(error, "reason", None), error.__cause__, error.__context__, *error.args)
        error = next((each for each in inside if isinstance(each, BaseException)), error)
    return error
