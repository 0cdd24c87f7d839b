"""Environment variables that affect a run, with their effect; the reference documentation is generated from this."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

from nissa.config.environment_variables import CONFIG_VARIABLE, PROFILE_VARIABLE, RUN_ID_VARIABLE

_SIGNALS: Final = "{TRACES,METRICS,LOGS}"


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, or several that differ in the alternatives in braces.

    Args:
        name: Name or pattern, such as ``OTEL_{TRACES,METRICS,LOGS}_EXPORTER``.
        meaning: Effect on a run.
    """

    name: str
    meaning: str

    def names(self) -> Iterator[str]:
        """Yield the names of all variables that the pattern matches."""
        parts = [part.split(",") for part in self.name.replace("}", "{").split("{")]
        return map("".join, product(*parts))


OURS: Final = (
    Variable(PROFILE_VARIABLE, "Profile to start from, where `nissa.start` is given none."),
    Variable(CONFIG_VARIABLE, "YAML file with settings, where `nissa.start` is given none."),
    Variable(
        RUN_ID_VARIABLE, "Identity of the run, where `nissa.start` is given none; the same for all its processes."
    ),
)
"""Nissa's variables beyond settings; each setting also has its own variable."""

LAUNCHERS: Final = (
    Variable(
        "{RANK,SLURM_PROCID,OMPI_COMM_WORLD_RANK}", "This process among all, as `dl.rank`; the first that is set."
    ),
    Variable(
        "{LOCAL_RANK,SLURM_LOCALID,OMPI_COMM_WORLD_LOCAL_RANK}",
        "This process among those of its host, as `dl.local_rank`.",
    ),
    Variable("{WORLD_SIZE,SLURM_NTASKS,OMPI_COMM_WORLD_SIZE}", "How many processes there are, as `dl.world_size`."),
    Variable("TORCHELASTIC_RUN_ID", "Identity of the run, where neither `nissa.start` nor `NISSA_RUN_ID` gives one."),
)
"""Variables set by torchrun, Slurm and MPI."""

OTHERS: Final = (
    Variable(
        "{REQUESTS_CA_BUNDLE,CURL_CA_BUNDLE}", "Authorities for HTTP; they win over `OTEL_EXPORTER_OTLP_CERTIFICATE`."
    ),
    Variable("PYTEST_CURRENT_TEST", "Under pytest, `strict` is on unless it is set."),
)
"""Variables of other libraries that affect Nissa."""

OPENTELEMETRY: Final = (
    Variable("OTEL_SDK_DISABLED", "`true`: no telemetry at all."),
    Variable("OTEL_CONFIG_FILE", "File that declares everything; no other variable of the SDK is read then."),
    Variable(f"OTEL_{_SIGNALS}_EXPORTER", "Exporters of a signal, separated by commas; `none` for none."),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "Where the collector is; turns on OTLP for signals that name no exporter."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_ENDPOINT", "The same for one signal; over HTTP with the path."),
    Variable("OTEL_EXPORTER_OTLP_PROTOCOL", "`grpc` (the default) or `http/protobuf`."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_PROTOCOL", "The same for one signal."),
    Variable("OTEL_EXPORTER_OTLP_HEADERS", "`name=value` pairs, URL-encoded; never printed."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_HEADERS", "The same for one signal."),
    Variable("OTEL_EXPORTER_OTLP_COMPRESSION", "`gzip`; over HTTP also `deflate` or `none`."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_COMPRESSION", "The same for one signal."),
    Variable("OTEL_EXPORTER_OTLP_TIMEOUT", "Seconds that an export may take with its retries, default 10."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_TIMEOUT", "The same for one signal."),
    Variable("OTEL_EXPORTER_OTLP_CERTIFICATE", "File of the authorities that may sign the collector's certificate."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_CERTIFICATE", "The same for one signal."),
    Variable("OTEL_EXPORTER_OTLP_CLIENT_KEY", "File of our key, where the collector asks who we are."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_CLIENT_KEY", "The same for one signal."),
    Variable("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "File of our certificate."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_CLIENT_CERTIFICATE", "The same for one signal."),
    Variable("OTEL_EXPORTER_OTLP_INSECURE", "gRPC: whether an endpoint without a scheme is not encrypted."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_INSECURE", "The same for one signal."),
    Variable(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "`cumulative` (the default), `delta` or `lowmemory`."
    ),
    Variable("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "The application's histograms; not ours."),
    Variable("OTEL_METRICS_EXEMPLAR_FILTER", "`always_off`: no exemplars."),
    Variable("OTEL_METRIC_EXPORT_INTERVAL", "Milliseconds between two exports of metrics, default 60000; files 15000."),
    Variable("OTEL_METRIC_EXPORT_TIMEOUT", "Not heeded by the OTLP exporters."),
    Variable("OTEL_EXPORTER_PROMETHEUS_HOST", "Where the exporter `prometheus` listens."),
    Variable("OTEL_EXPORTER_PROMETHEUS_PORT", "Its port, default 9464; one for each process."),
    Variable("OTEL_SERVICE_NAME", "`service.name`, where `nissa.start` is given none."),
    Variable("OTEL_RESOURCE_ATTRIBUTES", "Added to the resource."),
    Variable("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "Detectors that add to the resource."),
    Variable("OTEL_TRACES_SAMPLER", "Which traces are kept."),
    Variable("OTEL_TRACES_SAMPLER_ARG", "Its argument, such as the ratio."),
    Variable("OTEL_{BSP,BLRP}_SCHEDULE_DELAY", "Milliseconds between two exports of spans; of log records."),
    Variable("OTEL_{BSP,BLRP}_MAX_QUEUE_SIZE", "How many may wait; 16384 here unless set."),
    Variable("OTEL_{BSP,BLRP}_MAX_EXPORT_BATCH_SIZE", "How many one message has at most."),
    Variable("OTEL_{BSP,BLRP}_EXPORT_TIMEOUT", "Not heeded by the SDK."),
    Variable("OTEL_ATTRIBUTE_COUNT_LIMIT", "Attributes of a span or log record at most."),
    Variable("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "Characters of a text at most, the narrative among them."),
    Variable("OTEL_{SPAN,LOGRECORD}_ATTRIBUTE_COUNT_LIMIT", "The first of these for one signal."),
    Variable("OTEL_{SPAN,LOGRECORD}_ATTRIBUTE_VALUE_LENGTH_LIMIT", "The second of these for one signal."),
    Variable("OTEL_SPAN_{EVENT,LINK}_COUNT_LIMIT", "Events and links of a span at most."),
    Variable("OTEL_{EVENT,LINK}_ATTRIBUTE_COUNT_LIMIT", "Attributes of a span's event or link at most."),
    Variable("OTEL_PYTHON_{TRACER,METER,LOGGER}_PROVIDER", "Entry point of a provider, where no exporter is named."),
    Variable("OTEL_PYTHON_ID_GENERATOR", "Ids of the application's spans; not of ours."),
    Variable("OTEL_PYTHON_{TRACER,METER,LOGGER}_CONFIGURATOR", "May silence the tracer or logger `nissa`."),
    Variable("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "`true`: the SDK's metrics about itself."),
    Variable("OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED", "`true`: Python's log records are sent too."),
    Variable(
        "OTEL_PYTHON_EXPORTER_OTLP_{GRPC,HTTP}_CREDENTIAL_PROVIDER", "Entry point of credentials; of an HTTP session."
    ),
    Variable(f"OTEL_PYTHON_EXPORTER_OTLP_{{GRPC,HTTP}}_{_SIGNALS}_CREDENTIAL_PROVIDER", "The same for one signal."),
    Variable("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", "Codes after which gRPC tries again."),
)
"""OpenTelemetry's variables; ``docs/how-to/exporters.md`` lists the effect and the test of each."""


def opentelemetry_names() -> set[str]:
    """Return the names of OpenTelemetry's variables."""
    return {name for variable in OPENTELEMETRY for name in variable.names()}
