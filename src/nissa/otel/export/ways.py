"""Which exporters the environment asks for, signal by signal, as the SDK's configurator will read it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from opentelemetry.util.re import parse_env_headers

from nissa.errors import ConfigurationError, UnknownNameError
from nissa.otel.setup import ENDPOINTS, SIGNALS

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
PROTOCOLS: Final = (GRPC, HTTP)
"""The protocols that the Python SDK speaks."""

_OVERRULED: Final = (
    "OTEL_CONFIG_FILE",
    "OTEL_SDK_DISABLED",
    *(f"OTEL_EXPORTER_OTLP_{signal}_{part}" for signal in SIGNALS for part in ("ENDPOINT", "PROTOCOL")),
)
"""What would keep an endpoint that is given from being used."""
_SPELLED_OUT: Final = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}


@dataclass(frozen=True, slots=True)
class Way:
    """One exporter of one signal.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        exporter: Its name, as in ``OTEL_TRACES_EXPORTER``.
        protocol: What it speaks where it is an OTLP exporter for a collector, as it was given; else None.
    """

    signal: str
    exporter: str
    protocol: str | None


def ways(environ: Mapping[str, str]) -> list[Way]:
    """Return the exporters that a run would get; none where it would write files, or is silenced."""
    return [
        Way(signal.lower(), name, protocol(name, signal, environ))
        for signal in SIGNALS
        for name in exporters(signal, environ)
    ]


def exporters(signal: str, environ: Mapping[str, str]) -> list[str]:
    """Return the names of a signal's exporters; an endpoint without any turns on OTLP."""
    default = "otlp" if any(map(environ.get, ENDPOINTS)) else ""
    names = environ.get(f"OTEL_{signal}_EXPORTER") or default
    return [name.strip() for name in names.split(",") if name.strip() not in {"", "none"}]


def is_header(entry: str) -> bool:
    """Return whether the exporters send one of the comma-separated entries of their headers; they drop others."""
    return bool(parse_env_headers(entry, liberal=True))


def protocol(exporter: str, signal: str, environ: Mapping[str, str]) -> str | None:
    """Return the OTLP protocol of an exporter; None where it speaks none to a collector."""
    if exporter != "otlp":
        return _SPELLED_OUT.get(exporter)
    given = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return given.strip() if given else GRPC


@contextmanager
def asked_for(endpoint: str | None, protocol: str | None, named: Mapping[str, str] | None = None) -> Iterator[None]:
    """Have the environment say what was given as arguments, for a while; ``named`` are further variables to set.

    Raises:
        ConfigurationError: The protocol is none, or says what an endpoint speaks that is not given.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    if protocol is not None and endpoint is None:
        raise ConfigurationError("--protocol says what --endpoint speaks; give both.")
    before = dict(os.environ)
    if endpoint is not None:
        for name in _OVERRULED:
            os.environ.pop(name, None)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    if protocol is not None:
        os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    os.environ.update(named or {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
