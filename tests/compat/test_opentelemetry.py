"""Every name of `nissa.otel.compat` does what its docstring states, with the release of the SDK that is installed."""

import os
import subprocess
import sys
from typing import Any

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)

from nissa.otel import compat

NOWHERE = "http://127.0.0.1:9/v1/metrics"


def provider(*readers: Any, **settings: Any) -> MeterProvider:
    return MeterProvider(readers, shutdown_on_exit=False, **settings)


def test_instrumented_libraries_are_told_to_record_no_span() -> None:
    assert is_instrumentation_enabled()
    token = context.attach(context.Context())
    compat.suppress_instrumentation()
    assert not is_instrumentation_enabled()
    context.detach(token)
    assert is_instrumentation_enabled()


def test_global_providers_are_built_with_further_attributes_of_the_resource() -> None:
    code = (
        "from nissa.otel.compat import configure_providers, metric_readers\n"
        "from opentelemetry import metrics, trace\n"
        "configure_providers({'nissa.run.id': 'r1'})\n"
        "print(trace.get_tracer_provider().resource.attributes['nissa.run.id'], len(metric_readers(metrics.get_meter_provider())))"
    )
    names = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "LOGS")} | {"OTEL_METRICS_EXPORTER": "console"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **names}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[0] == "r1 1", done.stderr


def test_the_readers_of_a_provider_are_found() -> None:
    pull = InMemoryMetricReader()
    push = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=NOWHERE), export_interval_millis=1e9)
    made = provider(pull, push)
    assert compat.metric_readers(made) == (pull, push)
    assert compat.metric_readers(object()) is None
    push._set_collect_callback(lambda *_, **__: None)  # type: ignore[arg-type]  # nothing to send at its end
    push.shutdown(timeout_millis=1)


def test_log_records_are_encoded_in_both_formats() -> None:
    logger_provider = LoggerProvider(shutdown_on_exit=False)
    exporter: Any = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped
    logger_provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger_provider.get_logger("app").emit(body="said", event_name="x")
    records = exporter.get_finished_logs()
    request = ExportLogsServiceRequest.FromString(compat.protobuf_log_encoder()(records).SerializeToString())
    (record,) = request.resource_logs[0].scope_logs[0].log_records
    assert (record.body.string_value, record.event_name) == ("said", "x")
    in_json = compat.json_log_encoder()(records).to_dict()["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert (in_json["body"], in_json["eventName"]) == ({"stringValue": "said"}, "x")
