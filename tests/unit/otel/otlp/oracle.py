"""The official exporters and our client under the same variables, and what a receiver got from either."""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nissa.errors import ConfigurationError
from nissa.otel.otlp.client import OtlpClient
from nissa.otel.otlp.outcome import Outcome, SendResult
from nissa.otel.otlp.settings import OtlpSettings
from tests.receivers import Received, Receiver, Response

SIGNALS = ("traces", "metrics", "logs")
GRPC, HTTP = "grpc", "http/protobuf"
_EXPORTERS = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_OWN = {"user-agent", "content-length"}
"""Headers that name the sender, and the size of a compressed body, which depends on the level."""


@dataclass(frozen=True)
class Side:
    """What one side did.

    Attributes:
        requests: Path, headers, decompressed body and client certificate of each request that arrived.
        delivered: Whether it considers the request delivered; None if it could not be set up.
    """

    requests: list[tuple[str, dict[str, str], bytes, str | None]]
    delivered: bool | None


def telemetry(signal: str, text: str = "value") -> Any:
    """Return one span, metric or log record of the SDK."""
    if signal == "traces":
        spans = InMemorySpanExporter()
        tracer = TracerProvider(shutdown_on_exit=False)
        tracer.add_span_processor(SimpleSpanProcessor(spans))
        tracer.get_tracer("t").start_span("s", attributes={"text": text}).end()
        return spans.get_finished_spans()
    if signal == "metrics":
        reader = InMemoryMetricReader()
        meter = MeterProvider([reader], shutdown_on_exit=False)
        meter.get_meter("t").create_counter("c").add(1, {"text": text})
        data = reader.get_metrics_data()
        meter.shutdown()
        return data
    records: Any = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped
    logger = LoggerProvider(shutdown_on_exit=False)
    logger.add_log_record_processor(SimpleLogRecordProcessor(records))
    logger.get_logger("t").emit(body=text, event_name="e")
    return records.get_finished_logs()


def payload(signal: str, data: Any) -> bytes:
    """Return telemetry as a serialized request."""
    encoders: dict[str, Any] = {"traces": encode_spans, "metrics": encode_metrics, "logs": encode_logs}
    return bytes(encoders[signal](data).SerializeToString())


def official(signal: str, protocol: str) -> Any:
    """Return the official exporter that the environment describes."""
    module, name = _EXPORTERS[signal]
    package = "grpc" if protocol == GRPC else "http"
    return getattr(import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}"), name)()


def variables(signal: str, given: Mapping[str, str], **values: Any) -> dict[str, str]:
    """Return variables by their complete names.

    Names get the prefix ``OTEL_EXPORTER_OTLP_`` unless they are complete; ``{S}`` is the signal's part. Values may contain
    placeholders.
    """
    found = {}
    for name, value in given.items():
        complete = name.replace("{S}", signal.upper())
        other = complete.startswith("OTEL_") or complete.lower().endswith("_proxy") or complete == "NETRC"
        complete = complete if other or "CA_BUNDLE" in complete else f"OTEL_EXPORTER_OTLP_{complete}"
        found[complete] = value.format(S=signal.upper(), s=signal, **values)
    return found


def both(
    signal: str, protocol: str, receivers: list[Receiver], *, text: str = "value", attempts: int = 2
) -> tuple[Side, Side, SendResult | None]:
    """Send the same telemetry with the official exporter and with our client, and return what either did.

    Our client is asked again after `Outcome.RETRY`, as the official exporter does by itself.
    """
    data = telemetry(signal, text)
    scripts = [list(receiver.script) for receiver in receivers]
    theirs = _side(receivers, scripts, lambda: deliver_official(signal, protocol, data))
    results: list[SendResult] = []
    ours = _side(receivers, scripts, lambda: deliver_ours(signal, protocol, data, attempts, results))
    return theirs, ours, results[0] if results else None


def _side(receivers: list[Receiver], scripts: list[list[Response]], deliver: Callable[[], bool | None]) -> Side:
    for receiver, script in zip(receivers, scripts, strict=True):
        receiver.script, receiver.got = list(script), []
    delivered = deliver()
    return Side([_comparable(each) for receiver in receivers for each in receiver.got], delivered)


def deliver_official(signal: str, protocol: str, data: Any) -> bool | None:
    """Export with the official exporter; return whether it reports success, or None if it cannot be built."""
    try:
        exporter = official(signal, protocol)
    except Exception:  # noqa: BLE001 - each part raises an error of its own
        return None
    try:
        return bool(exporter.export(data).name == "SUCCESS")
    finally:
        exporter.shutdown()


def deliver_ours(
    signal: str, protocol: str, data: Any, attempts: int = 1, results: list[SendResult] | None = None
) -> bool | None:
    """Send with our client; return whether it was delivered, or None if it cannot be set up."""
    results = [] if results is None else results
    try:
        client = OtlpClient(OtlpSettings.from_environment(signal, protocol=protocol))
    except ConfigurationError:
        return None
    stored = gzip.compress(payload(signal, data))
    try:
        while len(results) < attempts and all(each.outcome is Outcome.RETRY for each in results):
            results.append(client.send(stored))
    finally:
        client.close()
    return results[-1].outcome is Outcome.DELIVERED


def _comparable(received: Received) -> tuple[str, dict[str, str], bytes, str | None]:
    headers = {name: value for name, value in received.headers.items() if name not in _OWN}
    return received.path, headers, received.plain, received.client
