"""Exporters that environment variables select, signal by signal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nissa.otel.otlp.settings import ENDPOINTS, GRPC, HTTP, PREFIX, SIGNALS

if TYPE_CHECKING:
    from nissa.journal import Signal

OTLP: Final = "otlp"
_NAMED_PROTOCOLS: Final = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}
"""Exporters whose name selects the protocol."""


@dataclass(frozen=True, slots=True)
class SelectedExporter:
    """Exporter of one signal.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        exporter: Name, as in ``OTEL_TRACES_EXPORTER``.
        protocol: OTLP protocol as given, which may be unknown; None for an exporter that does not send OTLP.
    """

    signal: "Signal"
    exporter: str
    protocol: str | None


def selected_exporters(environ: Mapping[str, str]) -> list[SelectedExporter]:
    """Return the exporters of a run; an endpoint selects OTLP for signals that name none."""
    default = OTLP if any(map(environ.get, ENDPOINTS)) else ""
    return [
        SelectedExporter(signal, name, _protocol(name, signal, environ))
        for signal in SIGNALS
        for name in map(str.strip, (environ.get(f"OTEL_{signal.upper()}_EXPORTER") or default).split(","))
        if name not in {"", "none"}
    ]


def _protocol(exporter: str, signal: str, environ: Mapping[str, str]) -> str | None:
    if exporter != OTLP:
        return _NAMED_PROTOCOLS.get(exporter)
    given = environ.get(f"{PREFIX}{signal.upper()}_PROTOCOL") or environ.get(f"{PREFIX}PROTOCOL")
    return given.strip() if given else GRPC
