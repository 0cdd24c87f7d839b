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
    Variable(
        "TRACEPARENT", "Span that the run was started in, as W3C Trace Context; traces of the run have links to it."
    ),
    Variable("TRACESTATE", "State of that span."),
    Variable("PYTEST_CURRENT_TEST", "Under pytest, `strict` is on unless it is set."),
)
"""Variables of other libraries that affect Nissa."""

OPENTELEMETRY: Final = (
    Variable(
        "OTEL_SDK_DISABLED", "`true`: no telemetry and no files, whatever else is set; hooks and the console line stay."
    ),
    Variable(
        "OTEL_CONFIG_FILE",
        "YAML file that declares all providers and exporters; the SDK then reads no other `OTEL_*` variable. Needs the "
        "package `opentelemetry-configuration`.",
    ),
    Variable(
        f"OTEL_{_SIGNALS}_EXPORTER",
        "Exporter names, separated by commas: `otlp`, `otlp_proto_grpc`, `otlp_proto_http`, `console`, `otlp_json_file` "
        "(to standard output), `none`; metrics also `prometheus`. A name that is not installed is an error at start.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Address of the collector. Turns on OTLP for the signals that name no exporter. Over gRPC, an address without "
        "a scheme uses TLS.",
    ),
    Variable(
        f"OTEL_EXPORTER_OTLP_{_SIGNALS}_ENDPOINT",
        "The same for one signal; overrides the general address and, like it, turns on all signals. Over HTTP it must "
        "include the path.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "`grpc` (the default), `http/protobuf` or `http/json`; anything else is an error at start. Set alone, it turns on "
        "nothing.",
    ),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_PROTOCOL", "The same for one signal; overrides the general one."),
    Variable(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "`name=value` pairs, URL-encoded. Their values are never printed. A header that the protocol cannot send is an "
        "error at start.",
    ),
    Variable(
        f"OTEL_EXPORTER_OTLP_{_SIGNALS}_HEADERS",
        "The same for one signal. They replace the general headers; they are not added to them.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "gRPC: `gzip` or `none`. HTTP: `gzip`, `deflate` or `none`. Anything else is an error at start.",
    ),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_COMPRESSION", "The same for one signal; overrides the general one."),
    Variable(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "Time limit of an export, default 10. **Seconds** in Python, although the specification says "
        "milliseconds: `10000` is nearly three hours. `limits.exit_timeout_seconds` still bounds the end of a run.",
    ),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_TIMEOUT", "The same for one signal; overrides the general one."),
    Variable(
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "File of the certificate authorities that may sign the collector's certificate.",
    ),
    Variable(
        f"OTEL_EXPORTER_OTLP_{_SIGNALS}_CERTIFICATE",
        "The same for one signal; overrides the general one. Over gRPC the key and the certificate of that signal are "
        "then read too, and the general ones are not.",
    ),
    Variable("OTEL_EXPORTER_OTLP_CLIENT_KEY", "File of the client's private key (mutual TLS)."),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_CLIENT_KEY", "The same for one signal; used with its `CERTIFICATE`."),
    Variable("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "File of the client's certificate (mutual TLS)."),
    Variable(
        f"OTEL_EXPORTER_OTLP_{_SIGNALS}_CLIENT_CERTIFICATE", "The same for one signal; used with its `CERTIFICATE`."
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_INSECURE",
        "gRPC only. `true`: an endpoint without a scheme is not encrypted. The scheme `https` overrides it.",
    ),
    Variable(f"OTEL_EXPORTER_OTLP_{_SIGNALS}_INSECURE", "The same for one signal; overrides the general one."),
    Variable(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "`cumulative` (the default), `delta` or `lowmemory`; the last two are the same for Nissa's metrics. "
        "`nissa.seed.count` is always cumulative. With `delta`, a failed export loses its interval; cumulative values "
        "are complete again at the next export.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "Applies to the application's histograms. Nissa's histograms have fixed kinds, listed in the reference of "
        "metrics, because their buckets are filled where they are measured.",
    ),
    Variable(
        "OTEL_METRICS_EXEMPLAR_FILTER",
        "`always_off`: no exemplars. `always_on` and `trace_based` are the same for Nissa's metrics: an exemplar links "
        "to the trace of the epoch it was measured in, and is absent where a sampler has dropped that epoch.",
    ),
    Variable(
        "OTEL_METRIC_EXPORT_INTERVAL",
        "Milliseconds between two exports of metrics, default 60000; for files 15000, or "
        "`files.export_interval_seconds`. Gauges keep a point for each step in between.",
    ),
    Variable("OTEL_METRIC_EXPORT_TIMEOUT", "No effect: passed to the exporter, but the OTLP exporters ignore it."),
    Variable(
        "OTEL_EXPORTER_PROMETHEUS_HOST", "Address on which the exporter `prometheus` listens, default `localhost`."
    ),
    Variable(
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "Its port, default 9464; each process needs its own. A port that is in use is an error at start.",
    ),
    Variable("OTEL_SERVICE_NAME", "`service.name`, default `nissa`. `nissa.start(service_name=)` overrides it."),
    Variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        "Added to the resource, also in files. Attributes that the run sets (`nissa.run.id`, `dl.rank`) override it.",
    ),
    Variable(
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
        "Detectors that add to the resource, such as `process,host`. `service.instance.id` is then added only if "
        "`service_instance` is in the list.",
    ),
    Variable(
        "OTEL_TRACES_SAMPLER",
        "Any sampler, also an entry point. Dropped seeds are counted in `nissa.seed.unsampled`; metrics and log records "
        "are sent all the same.",
    ),
    Variable("OTEL_TRACES_SAMPLER_ARG", "Argument of the sampler, such as the ratio."),
    Variable(
        "OTEL_BSP_SCHEDULE_DELAY",
        "Milliseconds between two exports of spans by the SDK's exporters, default 5000. The journal is written at once.",
    ),
    Variable(
        "OTEL_BSP_MAX_QUEUE_SIZE", "Capacity of the span queue of the SDK's exporters; the journal has its own bound."
    ),
    Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "Most spans in one message of the SDK's exporters, default 512."),
    Variable("OTEL_BSP_EXPORT_TIMEOUT", "No effect: the SDK reads it and ignores it."),
    Variable("OTEL_BLRP_SCHEDULE_DELAY", "As `OTEL_BSP_SCHEDULE_DELAY`, for log records."),
    Variable("OTEL_BLRP_MAX_QUEUE_SIZE", "As `OTEL_BSP_MAX_QUEUE_SIZE`, for log records."),
    Variable("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "As `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, for log records."),
    Variable("OTEL_BLRP_EXPORT_TIMEOUT", "No effect, as for spans."),
    Variable(
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
        "Most attributes of a span or log record, Nissa's included; further ones are dropped. Metrics are not limited.",
    ),
    Variable("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "Longest text of an attribute; also truncates the narrative."),
    Variable("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "The count limit for spans; overrides the general one."),
    Variable("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "The length limit for spans; overrides the general one."),
    Variable("OTEL_SPAN_EVENT_COUNT_LIMIT", "Most events of a span, default 128; the oldest are dropped."),
    Variable("OTEL_SPAN_LINK_COUNT_LIMIT", "Most links of a span, default 128."),
    Variable("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "Most attributes of a span's event."),
    Variable("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "Most attributes of a span's link."),
    Variable("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "The count limit for log records; overrides the general one."),
    Variable(
        "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "The length limit for log records; overrides the general one."
    ),
    Variable(
        "OTEL_PYTHON_{TRACER,METER,LOGGER}_PROVIDER",
        "Entry point that makes the provider. Named exporters override it. `sdk_meter_provider` and its like have no "
        "exporter, so that nothing would be sent.",
    ),
    Variable(
        "OTEL_PYTHON_ID_GENERATOR",
        "Applies to the application's spans. Nissa decides the ids of its own spans when an event happens.",
    ),
    Variable("OTEL_PYTHON_TRACER_CONFIGURATOR", "May disable the tracer `nissa`."),
    Variable(
        "OTEL_PYTHON_METER_CONFIGURATOR",
        "No effect on Nissa's metrics, because no meter creates them. `OTEL_METRICS_EXPORTER=none` turns them off.",
    ),
    Variable("OTEL_PYTHON_LOGGER_CONFIGURATOR", "May disable the logger `nissa`."),
    Variable(
        "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
        "`true`: the SDK's own metrics, `otel.sdk.*`, are exported with the run's.",
    ),
    Variable(
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED",
        "`true`: Python's log records are exported too. The SDK has deprecated it.",
    ),
    Variable("OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER", "Entry point that returns channel credentials."),
    Variable(
        f"OTEL_PYTHON_EXPORTER_OTLP_GRPC_{_SIGNALS}_CREDENTIAL_PROVIDER",
        "The same for one signal; used only where the `CERTIFICATE` of that signal is set too.",
    ),
    Variable("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "Entry point that returns a `requests.Session`."),
    Variable(
        f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{_SIGNALS}_CREDENTIAL_PROVIDER",
        "The same for one signal; the general one overrides it.",
    ),
    Variable(
        "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES",
        "Status codes after which gRPC retries. An unknown code is an error at start.",
    ),
)
"""OpenTelemetry's variables; ``scripts/variable_tests.py`` names the tests of each."""


def opentelemetry_names() -> set[str]:
    """Return the names of OpenTelemetry's variables."""
    return {name for variable in OPENTELEMETRY for name in variable.names()}
