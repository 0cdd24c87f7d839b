"""Which exporters the environment asks for, signal by signal, as the SDK's configurator will read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from opentelemetry.util.re import parse_env_headers

from nissa.backends.otel.providers import ENDPOINTS, SIGNALS

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
PROTOCOLS: Final = (GRPC, HTTP)
"""The protocols that the Python SDK speaks."""

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
