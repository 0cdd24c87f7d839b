"""Prometheus series that the collector pipeline of ``collector-config/`` produces, for dashboards and alerts.

The package itself does not emit these. They come from the collector's span metrics connector and its own telemetry. A
test against real servers checks that each of them exists.
"""

from dataclasses import dataclass
from typing import Final

from nissa.semconv import attributes as attr

SERVICE_NAME: Final = "service.name"
"""Name of the training program, from ``OTEL_SERVICE_NAME`` or ``nissa.start(service_name=...)`` (resource)."""
SERVICE_INSTANCE_ID: Final = "service.instance.id"
"""One process of a service (resource)."""
RESOURCE: Final = (
    SERVICE_NAME,
    SERVICE_INSTANCE_ID,
    attr.RUN_ID,
    attr.PROFILE,
    attr.RANK,
    attr.LOCAL_RANK,
    attr.WORLD_SIZE,
)
"""Resource attributes that Prometheus puts on every series of a process."""


@dataclass(frozen=True, slots=True)
class PipelineSeries:
    """Prometheus series that the pipeline produces.

    Args:
        name: Name in Prometheus.
        labels: Labels, in addition to the resource attributes.
    """

    name: str
    labels: tuple[str, ...] = ()


SPAN_NAME: Final = "span_name"
"""Name of the spans that a series counts."""
STATUS_CODE: Final = "status_code"
"""Status of the spans that a series counts."""
_OF_SPANS: Final = (SPAN_NAME, STATUS_CODE, "span_kind", attr.BLUEPRINT_ID, attr.SEED_OUTCOME)
SPANS: Final = PipelineSeries("traces_span_metrics_calls_total", _OF_SPANS)
SPAN_SECONDS: Final = PipelineSeries("traces_span_metrics_duration_seconds", _OF_SPANS)

EXPORTER: Final = "exporter"
"""Exporter of the collector."""
RECEIVER: Final = "receiver"
"""Receiver of the collector."""
_IN: Final = (RECEIVER, "transport")
_OUT: Final = (EXPORTER, "server_address", "server_port", "url_path")
SIGNALS: Final = ("metric_points", "spans", "log_records")
"""Signals with separate counters in the collector."""
UPTIME: Final = PipelineSeries("otelcol_process_uptime_seconds_total")
MEMORY: Final = PipelineSeries("otelcol_process_memory_rss_bytes")
ACCEPTED: Final = tuple(PipelineSeries(f"otelcol_receiver_accepted_{each}_total", _IN) for each in SIGNALS)
REFUSED: Final = tuple(PipelineSeries(f"otelcol_receiver_refused_{each}_total", _IN) for each in SIGNALS)
SENT: Final = tuple(PipelineSeries(f"otelcol_exporter_sent_{each}_total", _OUT) for each in SIGNALS)
SEND_FAILED: Final = tuple(PipelineSeries(f"otelcol_exporter_send_failed_{each}_total", _OUT) for each in SIGNALS)
QUEUE_SIZE: Final = PipelineSeries("otelcol_exporter_queue_size", (EXPORTER, "data_type"))
QUEUE_CAPACITY: Final = PipelineSeries("otelcol_exporter_queue_capacity", (EXPORTER, "data_type"))

ALERTS: Final = PipelineSeries("ALERTS", ("alertname", "alertstate", "severity"))
"""Prometheus' own series of alerts that are pending or firing."""
