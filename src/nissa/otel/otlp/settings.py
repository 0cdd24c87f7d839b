"""Settings of one signal's OTLP client, read from the standard ``OTEL_EXPORTER_OTLP_*`` variables.

The rules are those of the official Python exporters, which the tests compare with. They differ where a rule of theirs would
hide a mistake: an unknown value raises here instead of being replaced by the default.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from nissa.errors import ConfigurationError, UnknownNameError
from nissa.otel.otlp import headers as header_format
from nissa.otel.otlp.outcome import RETRYABLE_CODES
from nissa.otel.otlp.redaction import public_url, secrets_of_headers, secrets_of_url

_logger = logging.getLogger("nissa")

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
HTTP_JSON: Final = "http/json"
PROTOCOLS: Final = (GRPC, HTTP, HTTP_JSON)
PREFIX: Final = "OTEL_EXPORTER_OTLP_"
SECONDS: Final = 10.0
"""Default timeout of a request."""
_DEFAULT_ENDPOINTS: Final = {
    GRPC: "http://localhost:4317",
    HTTP: "http://localhost:4318",
    HTTP_JSON: "http://localhost:4318",
}
_COMPRESSIONS: Final = {
    GRPC: ("gzip", "none"),
    HTTP: ("deflate", "gzip", "none"),
    HTTP_JSON: ("deflate", "gzip", "none"),
}
_SIGNALS: Final = ("traces", "metrics", "logs")
ENDPOINTS: Final = (f"{PREFIX}ENDPOINT", *(f"{PREFIX}{signal.upper()}_ENDPOINT" for signal in _SIGNALS))
"""Variables that name an endpoint, which turns on OTLP for all signals."""
_CODES: Final = RETRYABLE_CODES | {
    *("UNKNOWN", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED"),
    *("RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "UNIMPLEMENTED", "INTERNAL", "OK"),
}


@dataclass(frozen=True, slots=True, repr=False)
class OtlpSettings:
    """Everything that an OTLP client needs to know of one signal.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        protocol: ``grpc``, ``http/protobuf`` or ``http/json``.
        endpoint: For HTTP the complete URL of the signal, for gRPC a URL or ``host:port``. May contain credentials.
        headers: Headers or gRPC metadata of each request, by lower-case name. May contain credentials.
        timeout: Time limit of a request, seconds.
        compression: ``gzip``, ``deflate`` or ``none``.
        certificate: File of the certificate authorities of the receiver; None for the system's.
        client_key: File of the client's private key.
        client_certificate: File of the client's certificate.
        insecure: gRPC without TLS. HTTP uses TLS if the scheme is ``https``.
        credential_provider: Entry point that returns gRPC channel credentials or a ``requests.Session``.
        retryable_codes: gRPC codes after which a request may be sent again.
    """

    signal: str
    protocol: str
    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = SECONDS
    compression: str = "none"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool = False
    credential_provider: str | None = None
    retryable_codes: frozenset[str] = RETRYABLE_CODES

    @classmethod
    def from_environment(
        cls,
        signal: str,
        environ: Mapping[str, str] = os.environ,
        *,
        endpoint: str | None = None,
        protocol: str | None = None,
    ) -> "OtlpSettings":
        """Return the settings that the variables of a signal, or else the general ones, describe.

        Args:
            signal: ``traces``, ``metrics`` or ``logs``.
            environ: Environment variables; an empty one counts as unset.
            endpoint: General endpoint, instead of all endpoint variables. The signal's protocol variable is then ignored too.
            protocol: Protocol, instead of the protocol variables.

        Raises:
            ConfigurationError: A variable has a value that cannot be used; the message names it with the fix and never
                contains credentials.
        """
        if signal not in _SIGNALS:
            raise UnknownNameError("signal", signal, _SIGNALS)
        variables = _Variables(signal, environ)
        spoken = _protocol(variables, endpoint, protocol)
        where = _endpoint(variables, endpoint, spoken)
        found = cls(
            signal=signal,
            protocol=spoken,
            endpoint=where,
            headers=_headers(variables, grpc=spoken == GRPC),
            timeout=_timeout(variables),
            compression=_compression(variables, spoken),
            insecure=spoken == GRPC and _insecure(variables, where),
            retryable_codes=_retryable_codes(environ),
            **(_grpc_security(variables, where) if spoken == GRPC else _http_security(variables)),
        )
        _check_files(found)
        return found

    @property
    def address(self) -> str:
        """Endpoint without user info, query and path of the signal: what people know it by."""
        return public_url(self.target if self.protocol == GRPC else self.endpoint).removesuffix(f"/v1/{self.signal}")

    @property
    def destination(self) -> str:
        """Endpoint and protocol without credentials, for messages and for the comparison of destinations."""
        return f"{public_url(self.target if self.protocol == GRPC else self.endpoint)} ({self.protocol})"

    @property
    def target(self) -> str:
        """Address for gRPC: host and port of a URL, otherwise the endpoint as it is; without user info."""
        return (urlsplit(self.endpoint).netloc or self.endpoint).rpartition("@")[2]

    @property
    def secure(self) -> bool:
        """Whether TLS is used."""
        return not self.insecure if self.protocol == GRPC else self.endpoint.lower().startswith("https:")

    def secrets(self) -> Iterator[str]:
        """Yield what must not appear in any text: header values, and user info and query of the endpoint."""
        yield from secrets_of_headers(self.headers)
        yield from secrets_of_url(self.endpoint)

    def __repr__(self) -> str:
        return f"OtlpSettings({self.signal}: {self.destination})"


class _Variables:
    """The variables of one signal, with the general ones as fallback."""

    def __init__(self, signal: str, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.signal = signal
        self.own = f"{PREFIX}{signal.upper()}_"

    def get(self, part: str) -> tuple[str, str]:
        """Return the name of the variable that decides, and its value; the value is empty if none is set."""
        own = self.own + part
        return (own, self.value(own)) if self.value(own) else (PREFIX + part, self.value(PREFIX + part))

    def value(self, name: str) -> str:
        return self.environ.get(name, "").strip()


def _protocol(variables: _Variables, endpoint: str | None, given: str | None) -> str:
    if given is not None:
        name, value = "protocol", given.strip()
    elif endpoint is not None:
        name, value = f"{PREFIX}PROTOCOL", variables.value(f"{PREFIX}PROTOCOL")
    else:
        name, value = variables.get("PROTOCOL")
    if value and value not in PROTOCOLS:
        raise UnknownNameError(name if given is not None else f"protocol in {name}", value, PROTOCOLS)
    return value or GRPC


def _endpoint(variables: _Variables, given: str | None, protocol: str) -> str:
    own = "" if given is not None else variables.value(f"{variables.own}ENDPOINT")
    name = "The endpoint" if given is not None else f"{variables.own if own else PREFIX}ENDPOINT"
    general = given.strip() if given is not None else variables.value(f"{PREFIX}ENDPOINT")
    found = own or general or _DEFAULT_ENDPOINTS[protocol]
    problem = _problem(found, protocol)
    if problem:
        raise ConfigurationError(f"{name} {problem}; {_example(protocol, variables.signal if own else None)}.")
    if protocol == GRPC or own:
        return found
    return _with_path(found, f"v1/{variables.signal}")


def _problem(url: str, protocol: str) -> str | None:
    """Return why an endpoint cannot be used; the text does not contain it, because it may contain credentials."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        _ = parts.port
    except ValueError:
        return "has no valid host and port"
    if protocol == GRPC:
        return None
    if parts.scheme.lower() not in {"http", "https"}:
        return "does not begin with http:// or https://"
    return None if parts.hostname else "names no host"


def _example(protocol: str, signal: str | None) -> str:
    path = f"/v1/{signal}" if signal and protocol != GRPC else ""
    return f"give a URL such as {_DEFAULT_ENDPOINTS[protocol]}{path}"


def _with_path(url: str, path: str) -> str:
    """Return a general endpoint with the path of a signal, before a query if there is one."""
    base = url.partition("?")[0].partition("#")[0]
    return f"{base.removesuffix('/')}/{path}{url[len(base) :]}"


def _headers(variables: _Variables, *, grpc: bool) -> dict[str, str]:
    name, text = variables.get("HEADERS")
    found, broken = header_format.parse(text)
    for number in broken:
        _logger.warning(
            "Entry %d of %s is not a name=value pair and is not sent. Separate pairs by commas, and URL-encode values.",
            number,
            name,
        )
    unsendable = list(header_format.unsendable(found, grpc=grpc))
    if unsendable:
        protocol, allowed = (
            ("gRPC", "lower-case names of letters, digits, '_', '-' and '.', and printable ASCII values")
            if grpc
            else ("HTTP", "values without line breaks in Latin-1")
        )
        raise ConfigurationError(f"{name}: {protocol} cannot send the header {unsendable[0]!r}; it allows {allowed}.")
    return found


def _timeout(variables: _Variables) -> float:
    name, text = variables.get("TIMEOUT")
    try:
        seconds = float(text) if text else SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"{name} is {text!r}; give seconds above 0, such as 10.")
    return seconds


def _compression(variables: _Variables, protocol: str) -> str:
    name, text = variables.get("COMPRESSION")
    known = _COMPRESSIONS[protocol]
    found = text.lower() or "none"
    if found not in known:
        raise UnknownNameError(f"compression for {protocol} in {name}", text, known)
    return found


def _insecure(variables: _Variables, endpoint: str) -> bool:
    """Return whether gRPC is not encrypted: ``https`` wins over the variables, and they win over ``http``."""
    scheme = urlsplit(endpoint).scheme.lower()
    if scheme == "https":
        return False
    _, value = variables.get("INSECURE")
    return value.lower() == "true" if value else scheme == "http"


def _http_security(variables: _Variables) -> dict[str, str | None]:
    general = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER"
    own = f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{variables.signal.upper()}_CREDENTIAL_PROVIDER"
    return {
        "certificate": variables.get("CERTIFICATE")[1] or None,
        "client_key": variables.get("CLIENT_KEY")[1] or None,
        "client_certificate": variables.get("CLIENT_CERTIFICATE")[1] or None,
        "credential_provider": variables.value(general) or variables.value(own) or None,
    }


def _grpc_security(variables: _Variables, endpoint: str) -> dict[str, str | None]:
    """Return TLS files and credential provider.

    All of them are read from one scope, signal or general: the one that has a ``CERTIFICATE``. The general credential
    provider needs none.
    """
    if _insecure(variables, endpoint):
        return {}
    prefix = variables.own if variables.value(f"{variables.own}CERTIFICATE") else PREFIX
    scope = f"{variables.signal.upper()}_" if prefix != PREFIX else ""
    provider = variables.value(f"OTEL_PYTHON_EXPORTER_OTLP_GRPC_{scope}CREDENTIAL_PROVIDER")
    certificate = variables.value(f"{prefix}CERTIFICATE")
    if provider or not certificate:
        return {"credential_provider": provider or None}
    return {
        "certificate": certificate,
        "client_key": variables.value(f"{prefix}CLIENT_KEY") or None,
        "client_certificate": variables.value(f"{prefix}CLIENT_CERTIFICATE") or None,
    }


def _retryable_codes(environ: Mapping[str, str]) -> frozenset[str]:
    name = "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES"
    codes = frozenset(code.strip().upper() for code in environ.get(name, "").split(",") if code.strip())
    for code in codes - _CODES:
        raise UnknownNameError(f"gRPC code in {name}", code, _CODES)
    return codes or RETRYABLE_CODES


def _check_files(settings: OtlpSettings) -> None:
    """Raise for TLS files that cannot be read or that belong together and are not given together."""
    files = {
        "CERTIFICATE": settings.certificate,
        "CLIENT_KEY": settings.client_key,
        "CLIENT_CERTIFICATE": settings.client_certificate,
    }
    for part, path in files.items():
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError(f"{PREFIX}{part} for {settings.signal} names {path}, which cannot be read.")
    # A certificate's file may contain its key, which only HTTP reads.
    alone = bool(settings.client_key) != bool(settings.client_certificate)
    if alone and (settings.client_key or settings.protocol == GRPC):
        raise ConfigurationError(
            f"{PREFIX}CLIENT_KEY and {PREFIX}CLIENT_CERTIFICATE for {settings.signal} are needed together; set both."
        )
