"""Tries what a run would use, and sends nothing: empty exports, and a meter provider that is joined and left again.

The exporters are the SDK's, built from the environment as for a run, so that endpoints, headers, certificates and
compression are theirs. What is used of their private surface is named here, and nowhere else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from time import monotonic, time, time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.hub.error_boundary import ErrorBoundary
from nissa.otel.export.ways import GRPC, HTTP
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.store import MetricStore

if TYPE_CHECKING:
    from nissa.otel.setup import Providers

_MODULES: Final = {"traces": "trace_exporter", "metrics": "metric_exporter", "logs": "_log_exporter"}
_CLASSES: Final = {"traces": "OTLPSpanExporter", "metrics": "OTLPMetricExporter", "logs": "OTLPLogExporter"}
_REQUESTS: Final = {
    "traces": ("trace", "ExportTraceServiceRequest"),
    "metrics": ("metrics", "ExportMetricsServiceRequest"),
    "logs": ("logs", "ExportLogsServiceRequest"),
}
_PACKAGES: Final = {GRPC: "opentelemetry.exporter.otlp.proto.grpc", HTTP: "opentelemetry.exporter.otlp.proto.http"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """An empty export, and what became of it.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        protocol: ``grpc`` or ``http/protobuf``.
        endpoint: Where it went, as the exporter has it.
        secure: Whether over TLS.
        seconds: How long it took.
        status: Name of the gRPC status or number of the HTTP status; None where there was no answer.
        reason: What the library says of a failure, empty where there was none.
        headers: Of an HTTP answer, by lower-case name.
        at: Our wall clock halfway through, seconds since the Unix epoch.
    """

    signal: str
    protocol: str
    endpoint: str
    secure: bool
    seconds: float
    status: str | None
    reason: str
    headers: dict[str, str]
    at: float


def build_exporter(signal: str, protocol: str) -> Any:
    """Return the SDK's OTLP exporter for a signal, as the environment of this process describes it."""
    module = import_module(f"{_PACKAGES[protocol]}.{_MODULES[signal]}")
    return getattr(module, _CLASSES[signal])()


def exporters_of(providers: "Providers") -> Iterator[tuple[str, str, Any]]:
    """Yield signal, protocol and exporter for each OTLP exporter of providers that the SDK has built."""
    found = {
        "traces": [_exporter(each) for each in inside(providers.tracer, "_active_span_processor", "_span_processors")],
        "metrics": [getattr(each, "_exporter", None) for each in inside(providers.meter, "_metric_readers")],
        "logs": [
            _exporter(each)
            for each in inside(providers.logger, "_multi_log_record_processor", "_log_record_processors")
        ],
    }
    for signal, exporters in found.items():
        for exporter in filter(None, map(innermost, exporters)):
            for protocol, package in _PACKAGES.items():
                if type(exporter).__module__.startswith(package):
                    yield signal, protocol, exporter


def _exporter(processor: Any) -> Any:
    batches = getattr(processor, "_batch_processor", processor)
    return getattr(batches, "_exporter", getattr(processor, "span_exporter", None))


def attempt(signal: str, protocol: str, exporter: Any, timeout: float) -> Attempt:
    """Send an empty request through an exporter's own connection, and wait at most so many seconds."""
    send = _over_grpc if protocol == GRPC else _over_http
    began, began_at = monotonic(), time()
    status, reason, headers = send(signal, exporter, timeout)
    seconds = monotonic() - began
    return Attempt(
        signal=signal,
        protocol=protocol,
        endpoint=str(exporter._endpoint),  # noqa: SLF001 - see the module docstring, here and below
        secure=not exporter._insecure if protocol == GRPC else exporter._endpoint.startswith("https:"),  # noqa: SLF001
        seconds=seconds,
        status=status,
        reason=reason,
        headers=headers,
        at=began_at + seconds / 2,
    )


def _over_grpc(signal: str, exporter: Any, timeout: float) -> tuple[str | None, str, dict[str, str]]:
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 - only where it is spoken

    package, name = _REQUESTS[signal]
    module = import_module(f"opentelemetry.proto.collector.{package}.v1.{package}_service_pb2")
    request = getattr(module, name)()
    try:
        exporter._client.Export(request=request, metadata=exporter._headers, timeout=timeout)  # noqa: SLF001
    except grpc.RpcError as error:
        return str(error.code().name), str(error.details() or ""), {}
    except Exception as error:  # noqa: BLE001 - headers that cannot be sent, for example
        return None, f"{type(error).__name__}: {error}", {}
    return "OK", "", {}


def _over_http(_: str, exporter: Any, timeout: float) -> tuple[str | None, str, dict[str, str]]:
    client = exporter._client  # noqa: SLF001
    result = client._transport.request(  # noqa: SLF001
        "POST",
        exporter._endpoint,  # noqa: SLF001
        headers=client._headers,  # noqa: SLF001
        data=client._compress(b""),  # noqa: SLF001
        timeout=timeout,
    )
    if result.error is not None:
        return None, f"{type(result.error).__name__}: {result.error}", {}
    headers = {name.lower(): value for name, value in result.headers().items()}
    return str(result.status_code), str(result.reason or ""), headers


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of joining a meter provider.

    Args:
        kind: Module and class of the provider.
        refused: Why our metrics cannot join it; None where they do.
        readers: How many of its readers asked for them.
        pulled: Whether one of the readers waits to be asked, as Prometheus's does.
    """

    kind: str
    refused: str | None
    readers: int
    pulled: bool


def join(meter: Any) -> Joined:
    """Join a meter provider as a run does, let each of its readers collect once, and leave it again.

    Nothing is exported: there are no metrics in what joins.
    """
    asked: list[None] = []
    store = MetricStore(time_ns(), GaugeLog(1))
    store.refreshers.append(lambda: asked.append(None))
    scope = InstrumentationScope("nissa")
    producer = MetricProducer(store, scope, most_buckets=160, error_boundary=ErrorBoundary(), owns_provider=False)
    refused = producer._join(meter)  # noqa: SLF001 - `install` would offer instruments, which cannot be taken back
    readers = list(inside(meter, "_metric_readers"))
    try:
        for collect in _collections(meter, readers) if refused is None else ():
            collect()
    finally:
        producer.uninstall()
    pulled = any(not hasattr(each, "_exporter") for each in readers)
    return Joined(f"{type(meter).__module__}.{type(meter).__name__}", refused, len(asked), pulled)


def _collections(meter: Any, readers: list[Any]) -> Iterator[Callable[[], object]]:
    for reader in readers:
        yield lambda reader=reader: meter._measurement_consumer.collect(reader)  # type: ignore[misc]  # noqa: SLF001


def innermost(exporter: Any) -> Any:
    """Return what exports in the end, where an exporter of ours is around it."""
    return getattr(exporter, "_exporter", exporter)


def inside(provider: Any, *path: str) -> Sequence[Any]:
    """Return the parts of a provider at a path of private names; none where it is built otherwise."""
    for name in path:
        provider = getattr(provider, name, ())
    return tuple(provider)
