"""Endpoint check: findings and advice for the test export to each OTLP endpoint."""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from nissa.doctor.finding import Finding, Level
from nissa.doctor.reaching import PATIENCE, Tried
from nissa.doctor.wire import Kind
from nissa.otel.export.ways import GRPC, HTTP

CHECK: Final = "endpoint"
_USUAL: Final = {4317: GRPC, 4318: HTTP}
_REDIRECTS: Final = "3"
_UNAUTHORISED: Final = frozenset({"401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED"})
_NOT_THERE: Final = frozenset({"404", "405", "UNIMPLEMENTED"})
_BUSY: Final = frozenset({"429", "502", "503", "504", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_PROTOBUF: Final = "application/x-protobuf"

_SWITCH: Final = {
    GRPC: "It is probably the port for HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or take the port for gRPC, "
    "usually 4317.",
    HTTP: "It is probably the port for gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or take the port for HTTP, usually 4318.",
}


def judge(tried: Tried, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings for one endpoint."""
    where = _where(tried)
    if tried.arrived:
        yield _arrived(tried, where)
        return
    found, advice = _problem(tried, _variable(tried, environ))
    yield Finding(CHECK, Level.ERROR, f"{where}: {found}", advice, (tried.target.signal,))
    # A wrong port is only a guess from the default ports (4317 gRPC, 4318 HTTP), so the hint is omitted if the probe
    # identified the protocol.
    _, port = tried.address
    usual = _USUAL.get(port)
    kind = tried.seen.kind if tried.seen else None
    if usual not in (None, tried.target.protocol) and kind not in (Kind.HTTP1, Kind.HTTP2):
        yield Finding(
            CHECK,
            Level.WARNING,
            f"{where}: {port} is usually the port for {usual}, and {tried.target.protocol} is used.",
            f"If that is not meant, set OTEL_EXPORTER_OTLP_PROTOCOL={usual}.",
            (tried.target.signal,),
        )


def _where(tried: Tried) -> str:
    """Return the endpoint without the signal's path, so that findings of several signals can be merged."""
    endpoint = str(getattr(tried.target.exporter, "_endpoint", ""))
    secure = ", TLS" if tried.attempt and tried.attempt.secure else ""
    return f"{endpoint.removesuffix(f'/v1/{tried.target.signal}')} ({tried.target.protocol}{secure})"


def _arrived(tried: Tried, where: str) -> Finding:
    signals = (tried.target.signal,)
    kind = (tried.attempt.headers if tried.attempt else {}).get("content-type", "")
    if tried.target.protocol == HTTP and not kind.startswith(_PROTOBUF):
        return Finding(
            CHECK,
            Level.WARNING,
            f"{where} answers, but not as an OTLP receiver does: its answer is {kind or 'of no type'}.",
            "Look at what listens there; it may take everything and keep nothing.",
            signals,
        )
    return Finding(CHECK, Level.OK, f"{where} takes exports.", signals=signals)


def _variable(tried: Tried, environ: Mapping[str, str]) -> str:
    own = f"OTEL_EXPORTER_OTLP_{tried.target.signal.upper()}_ENDPOINT"
    return own if environ.get(own) else "OTEL_EXPORTER_OTLP_ENDPOINT"


def _problem(tried: Tried, variable: str) -> tuple[str, str]:
    """Return the problem and the advice."""
    if tried.attempt is None:
        return "no answer in time; not even the host's name was resolved, perhaps.", f"Check the name in {variable}."
    if tried.seen is not None and (said := _of_connection(tried, variable)):
        return said
    return _of_status(tried, variable)


def _of_connection(tried: Tried, variable: str) -> tuple[str, str] | None:
    assert tried.seen is not None  # noqa: S101 - see the only caller
    host, port = tried.address
    kind, detail = tried.seen.kind, tried.seen.detail
    grpc = tried.target.protocol == GRPC
    plain = {
        Kind.UNKNOWN_HOST: (
            f"there is no host {host!r} ({detail}).",
            f"Correct the name in {variable}; within Compose or a cluster it is the name of the collector's service.",
        ),
        Kind.REFUSED: (
            f"nothing listens on port {port} of {host}.",
            f"Start the collector, or correct {variable}: 4317 is usual for gRPC, 4318 for HTTP.",
        ),
        Kind.NO_ROUTE: (f"{host} cannot be reached ({detail}).", f"Check the network, and the host in {variable}."),
        Kind.NO_ANSWER: (
            f"no connection to port {port} of {host} in time.",
            f"A firewall drops it, perhaps, or the host in {variable} is down.",
        ),
        Kind.SILENT: (
            f"connections are made, and no answer came within {PATIENCE:g} s.",
            "Something else listens there, or the collector hangs; look at its log.",
        ),
        Kind.BAD_CERTIFICATE: (f"its certificate is not accepted: {detail}.", _certificate_advice(detail, host)),
        Kind.BAD_FILE: (
            f"a file for TLS cannot be used ({detail}).",
            "Check what OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_KEY and _CLIENT_CERTIFICATE name: PEM, and a pair.",
        ),
        Kind.WANTS_CERTIFICATE: (
            "it wants a certificate of ours.",
            "Set OTEL_EXPORTER_OTLP_CLIENT_KEY and _CLIENT_CERTIFICATE"
            + (", and _CERTIFICATE: without it, gRPC reads neither." if grpc else "."),
        ),
        Kind.NO_TLS: (
            "TLS is used, and the server speaks none.",
            f"Begin {variable} with http://" + (", or set OTEL_EXPORTER_OTLP_INSECURE=true." if grpc else "."),
        ),
        Kind.OTHER: (
            "something listens there that is no OTLP receiver.",
            f"Correct {variable}, or look at what listens on port {port}.",
        ),
    }
    if kind is Kind.TLS and not (tried.attempt and tried.attempt.secure):
        return "the server wants TLS, and none is used.", f"Begin {variable} with https://."
    wrong = {Kind.HTTP1, Kind.TLS} if grpc else {Kind.HTTP2}
    if kind in wrong and not (kind is Kind.TLS and detail == "h2"):
        return f"the server speaks {'HTTP/1.1, not gRPC' if grpc else 'gRPC, not HTTP/1.1'}.", _SWITCH[
            tried.target.protocol
        ]
    return plain.get(kind)


def _certificate_advice(detail: str, host: str) -> str:
    said = detail.lower()
    if "mismatch" in said or "not valid for" in said:
        return f"It is for another name than {host!r}: use a name that is in it, or have one issued for this name."
    if "expired" in said or "not yet valid" in said:
        return "Have it renewed; if it is new, compare the clocks of both machines."
    return "Set OTEL_EXPORTER_OTLP_CERTIFICATE to the file of the authority that signed it (for HTTP, unset REQUESTS_CA_BUNDLE)."


def _of_status(tried: Tried, variable: str) -> tuple[str, str]:
    assert tried.attempt is not None  # noqa: S101 - see the only caller
    status, reason = tried.attempt.status, " ".join(tried.attempt.reason.split())
    said = f"{status} {reason}".strip() if status else reason
    if status in _UNAUTHORISED:
        return f"it refuses us ({said}).", "Set OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Bearer%20TOKEN."
    if status in _NOT_THERE:
        return f"it takes no {tried.target.signal} ({said}).", _path_advice(tried, variable)
    if status in _BUSY:
        return (
            f"it does not take exports now ({said}).",
            "Look at the collector's log: memory, queues, what it sends to.",
        )
    if (status or "").startswith(_REDIRECTS):
        target = tried.attempt.headers.get("location", "elsewhere")
        return (
            f"it redirects to {target} ({said}), which exporters do not follow.",
            f"Put that address into {variable}.",
        )
    if "MissingSchema" in reason or "InvalidSchema" in reason or "InvalidURL" in reason:
        return "that is no URL.", f"Begin {variable} with http:// or https://."
    where = "See the collector's log." if status else "Check OTEL_EXPORTER_OTLP_HEADERS, and the collector's log."
    return f"the export failed ({said}).", where


def _path_advice(tried: Tried, variable: str) -> str:
    if tried.target.protocol == GRPC:
        return (
            f"Its pipelines have no OTLP receiver for {tried.target.signal}, perhaps; or the port is another server's."
        )
    path = urlsplit(str(getattr(tried.target.exporter, "_endpoint", ""))).path
    wanted = f"/v1/{tried.target.signal}"
    if path == wanted:
        return (
            f"Its pipelines have no OTLP receiver for {tried.target.signal}, perhaps; or the port is another server's."
        )
    if variable == "OTEL_EXPORTER_OTLP_ENDPOINT":
        return f"{variable} must have no path of a signal: {wanted} is added to it."
    return f"{variable} is taken as it is, and needs the path: end it with {wanted}."
