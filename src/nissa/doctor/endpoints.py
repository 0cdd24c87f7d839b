"""Endpoint check: findings and advice for the test export to each OTLP endpoint."""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from nissa.doctor.check_result import CheckResult, Level
from nissa.doctor.export_checks import TIMEOUT, EndpointResult
from nissa.doctor.probe import ServerKind
from nissa.otel.otlp.settings import GRPC, HTTP, HTTP_JSON

CHECK: Final = "endpoint"
_USUAL: Final = {4317: GRPC, 4318: HTTP}
_SUCCESS: Final = "2"
_REDIRECTS: Final = "3"
_UNAUTHORISED: Final = frozenset({"401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED"})
_NOT_THERE: Final = frozenset({"404", "405", "UNIMPLEMENTED"})
_BUSY: Final = frozenset({"429", "502", "503", "504", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_TYPES: Final = {HTTP: "application/x-protobuf", HTTP_JSON: "application/json"}

_TO_GRPC: Final = (
    "It is probably the port for gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or take the port for HTTP, usually 4318."
)
_SWITCH: Final = {
    GRPC: "It is probably the port for HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or take the port for gRPC, "
    "usually 4317.",
    HTTP: _TO_GRPC,
    HTTP_JSON: _TO_GRPC,
}


def judge(result: EndpointResult, environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """Yield the findings for one endpoint."""
    where = _where(result)
    if result.arrived:
        yield _arrived(result, where)
        return
    found, advice = _problem(result, _variable(result, environ))
    yield CheckResult(CHECK, Level.ERROR, f"{where}: {found}", advice, (result.settings.signal,))
    # A wrong port is only a guess from the default ports (4317 gRPC, 4318 HTTP), so the hint is omitted if the probe
    # identified the protocol.
    _, port = result.address
    usual = _USUAL.get(port)
    kind = result.probed.kind if result.probed else None
    transport = GRPC if result.settings.protocol == GRPC else HTTP
    if usual not in (None, transport) and kind not in (ServerKind.HTTP1, ServerKind.HTTP2):
        yield CheckResult(
            CHECK,
            Level.WARNING,
            f"{where}: {port} is usually the port for {usual}, and {result.settings.protocol} is used.",
            f"If that is not meant, set OTEL_EXPORTER_OTLP_PROTOCOL={usual}.",
            (result.settings.signal,),
        )


def _where(result: EndpointResult) -> str:
    """Return the endpoint without the signal's path, so that findings of several signals can be merged."""
    settings = result.settings
    return f"{settings.address} ({settings.protocol}{', TLS' if settings.secure else ''})"


def _arrived(result: EndpointResult, where: str) -> CheckResult:
    signals = (result.settings.signal,)
    kind = (result.sent.headers if result.sent else {}).get("content-type", "")
    if not kind.startswith(_TYPES.get(result.settings.protocol, "")):
        return CheckResult(
            CHECK,
            Level.WARNING,
            f"{where} answers, but not as an OTLP receiver does: its answer is {kind or 'of no type'}.",
            "Look at what listens there; it may take everything and keep nothing.",
            signals,
        )
    return CheckResult(CHECK, Level.OK, f"{where} takes exports.", signals=signals)


def _variable(result: EndpointResult, environ: Mapping[str, str]) -> str:
    own = f"OTEL_EXPORTER_OTLP_{result.settings.signal.upper()}_ENDPOINT"
    return own if environ.get(own) else "OTEL_EXPORTER_OTLP_ENDPOINT"


def _problem(result: EndpointResult, variable: str) -> tuple[str, str]:
    """Return the problem and the advice."""
    if result.sent is None:
        return "no answer in time; not even the host's name was resolved, perhaps.", f"Check the name in {variable}."
    if result.probed is not None and (problem := _of_connection(result, variable)):
        return problem
    return _of_status(result, variable)


def _of_connection(result: EndpointResult, variable: str) -> tuple[str, str] | None:
    assert result.probed is not None  # noqa: S101 - see the only caller
    host, port = result.address
    kind, detail = result.probed.kind, result.probed.detail
    grpc = result.settings.protocol == GRPC
    plain = {
        ServerKind.UNKNOWN_HOST: (
            f"there is no host {host!r} ({detail}).",
            f"Correct the name in {variable}; within Compose or a cluster it is the name of the collector's service.",
        ),
        ServerKind.REFUSED: (
            f"nothing listens on port {port} of {host}.",
            f"Start the collector, or correct {variable}: 4317 is usual for gRPC, 4318 for HTTP.",
        ),
        ServerKind.NO_ROUTE: (
            f"{host} cannot be reached ({detail}).",
            f"Check the network, and the host in {variable}.",
        ),
        ServerKind.NO_ANSWER: (
            f"no connection to port {port} of {host} in time.",
            f"A firewall drops it, perhaps, or the host in {variable} is down.",
        ),
        ServerKind.SILENT: (
            f"connections are made, and no answer came within {TIMEOUT:g} s.",
            "Something else listens there, or the collector hangs; look at its log.",
        ),
        ServerKind.BAD_CERTIFICATE: (f"its certificate is not accepted: {detail}.", _certificate_advice(detail, host)),
        ServerKind.BAD_FILE: (
            f"a file for TLS cannot be used ({detail}).",
            "Check what OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_KEY and _CLIENT_CERTIFICATE name: PEM, and a pair.",
        ),
        ServerKind.WANTS_CERTIFICATE: (
            "it wants a certificate of ours.",
            "Set OTEL_EXPORTER_OTLP_CLIENT_KEY and _CLIENT_CERTIFICATE"
            + (", and _CERTIFICATE: without it, gRPC reads neither." if grpc else "."),
        ),
        ServerKind.NO_TLS: (
            "TLS is used, and the server speaks none.",
            f"Begin {variable} with http://" + (", or set OTEL_EXPORTER_OTLP_INSECURE=true." if grpc else "."),
        ),
        ServerKind.OTHER: (
            "the server there is not an OTLP receiver.",
            f"Correct {variable}, or look at what listens on port {port}.",
        ),
    }
    if kind is ServerKind.TLS and not result.settings.secure:
        return "the server wants TLS, and none is used.", f"Begin {variable} with https://."
    wrong = {ServerKind.HTTP1, ServerKind.TLS} if grpc else {ServerKind.HTTP2}
    if kind in wrong and not (kind is ServerKind.TLS and detail == "h2"):
        return f"the server speaks {'HTTP/1.1, not gRPC' if grpc else 'gRPC, not HTTP/1.1'}.", _SWITCH[
            result.settings.protocol
        ]
    return plain.get(kind)


def _certificate_advice(detail: str, host: str) -> str:
    message = detail.lower()
    if "mismatch" in message or "not valid for" in message:
        return f"It is for another name than {host!r}: use a name that is in it, or have one issued for this name."
    if "expired" in message or "not yet valid" in message:
        return "Have it renewed; if it is new, compare the clocks of both machines."
    return "Set OTEL_EXPORTER_OTLP_CERTIFICATE to the file of the authority that signed it (for HTTP, unset REQUESTS_CA_BUNDLE)."


def _of_status(result: EndpointResult, variable: str) -> tuple[str, str]:
    assert result.sent is not None  # noqa: S101 - see the only caller
    status, answer = result.sent.status, result.sent.reason
    if status in _UNAUTHORISED:
        return f"it refuses us ({answer}).", "Set OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Bearer%20TOKEN."
    if status in _NOT_THERE:
        return f"it takes no {result.settings.signal} ({answer}).", _path_advice(result, variable)
    if status in _BUSY:
        return (
            f"it does not take exports now ({answer}).",
            "Look at the collector's log: memory, queues, what it sends to.",
        )
    if (status or "").startswith(_REDIRECTS):
        target = result.sent.headers.get("location", "elsewhere")
        return (
            f"it redirects to {target} ({answer}), which exporters do not follow.",
            f"Put that address into {variable}.",
        )
    if (status or "").startswith(_SUCCESS):
        return "it answers with a web page, as a login or another server does.", f"Correct {variable}, or log in there."
    where = "See the collector's log." if status else "Check OTEL_EXPORTER_OTLP_HEADERS, and the collector's log."
    return f"the export failed ({answer}).", where


def _path_advice(result: EndpointResult, variable: str) -> str:
    if result.settings.protocol == GRPC:
        return f"Its pipelines have no OTLP receiver for {result.settings.signal}, perhaps; or the port is another server's."
    path = urlsplit(result.settings.endpoint).path
    wanted = f"/v1/{result.settings.signal}"
    if path == wanted:
        return f"Its pipelines have no OTLP receiver for {result.settings.signal}, perhaps; or the port is another server's."
    if variable == "OTEL_EXPORTER_OTLP_ENDPOINT":
        return f"{variable} must have no path of a signal: {wanted} is added to it."
    return f"{variable} is taken as it is, and needs the path: end it with {wanted}."
