"""Tests of the OpenTelemetry variables, by variable; a source of the reference of environment variables."""

from typing import Final

from nissa.doctor.variables import Variable

TESTS: Final[dict[str, tuple[str, ...]]] = {
    "OTEL_SDK_DISABLED": ("test_a_disabled_sdk_sends_nothing",),
    "OTEL_CONFIG_FILE": ("test_a_file_declares_everything",),
    "OTEL_{TRACES,METRICS,LOGS}_EXPORTER": (
        "test_none_is_none_and_several_are_several",
        "test_the_console_shows_every_signal",
        "test_a_signal_that_is_not_named_goes_nowhere",
        "test_an_exporter_that_does_not_exist_is_named_with_what_does",
    ),
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        "test_grpc_with_headers_and_gzip_and_totals",
        "test_http_with_deflate_and_differences",
    ),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_ENDPOINT": ("test_each_signal_goes_its_own_way",),
    "OTEL_EXPORTER_OTLP_PROTOCOL": (
        "test_http_with_deflate_and_differences",
        "test_what_the_sdk_cannot_set_up_fails_at_start_with_the_fix",
    ),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_PROTOCOL": ("test_each_signal_goes_its_own_way",),
    "OTEL_EXPORTER_OTLP_HEADERS": (
        "test_grpc_with_headers_and_gzip_and_totals",
        "test_both_sides_show_a_certificate",
    ),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_HEADERS": ("test_each_signal_goes_its_own_way",),
    "OTEL_EXPORTER_OTLP_COMPRESSION": (
        "test_grpc_with_headers_and_gzip_and_totals",
        "test_http_with_deflate_and_differences",
        "test_what_the_sdk_cannot_set_up_fails_at_start_with_the_fix",
    ),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_COMPRESSION": ("test_each_signal_goes_its_own_way",),
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("test_timeouts_are_in_seconds",),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_TIMEOUT": ("test_timeouts_are_in_seconds",),
    "OTEL_EXPORTER_OTLP_CERTIFICATE": (
        "test_both_sides_show_a_certificate",
        "test_who_cannot_show_or_check_a_certificate_is_not_heard_and_trains_on",
    ),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_CERTIFICATE": ("test_each_signal_has_its_own_certificates",),
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": ("test_both_sides_show_a_certificate",),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_CLIENT_KEY": ("test_each_signal_has_its_own_certificates",),
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": ("test_both_sides_show_a_certificate",),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_CLIENT_CERTIFICATE": ("test_each_signal_has_its_own_certificates",),
    "OTEL_EXPORTER_OTLP_INSECURE": (
        "test_without_a_scheme_grpc_is_encrypted_unless_told_otherwise",
        "test_a_scheme_decides_for_http_and_gives_way_for_grpc",
    ),
    "OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_INSECURE": (
        "test_a_scheme_decides_for_http_and_gives_way_for_grpc",
        "test_without_a_scheme_grpc_is_encrypted_unless_told_otherwise",
    ),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": (
        "test_grpc_with_headers_and_gzip_and_totals",
        "test_http_with_deflate_and_differences",
        "test_each_signal_goes_its_own_way",
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
        "test_what_a_sampler_drops_is_counted_and_no_exemplar_is_sent_where_none_is_wanted",
    ),
    "OTEL_METRICS_EXEMPLAR_FILTER": (
        "test_by_default_all_is_sampled_and_exemplars_lead_to_the_epoch",
        "test_what_a_sampler_drops_is_counted_and_no_exemplar_is_sent_where_none_is_wanted",
    ),
    "OTEL_METRIC_EXPORT_INTERVAL": (
        "test_http_with_deflate_and_differences",
        "test_batches_queues_and_intervals",
    ),
    "OTEL_METRIC_EXPORT_TIMEOUT": ("test_batches_queues_and_intervals",),
    "OTEL_EXPORTER_PROMETHEUS_HOST": ("test_prometheus_is_shown_the_present",),
    "OTEL_EXPORTER_PROMETHEUS_PORT": (
        "test_prometheus_is_shown_the_present",
        "test_the_real_prometheus_scrapes_it",
        "test_a_port_that_is_taken_fails_at_start_with_the_fix",
    ),
    "OTEL_SERVICE_NAME": (
        "test_the_service_s_name_comes_from_the_argument_then_the_environment",
        "test_grpc_with_headers_and_gzip_and_totals",
    ),
    "OTEL_RESOURCE_ATTRIBUTES": ("test_grpc_with_headers_and_gzip_and_totals",),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": ("test_credentials_detectors_and_ids",),
    "OTEL_TRACES_SAMPLER": (
        "test_what_a_sampler_drops_is_counted_and_no_exemplar_is_sent_where_none_is_wanted",
        "test_a_sampler_of_ones_own",
    ),
    "OTEL_TRACES_SAMPLER_ARG": ("test_what_a_sampler_drops_is_counted_and_no_exemplar_is_sent_where_none_is_wanted",),
    "OTEL_BSP_SCHEDULE_DELAY": ("test_batches_queues_and_intervals",),
    "OTEL_BSP_MAX_QUEUE_SIZE": ("test_batches_queues_and_intervals",),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ("test_batches_queues_and_intervals",),
    "OTEL_BSP_EXPORT_TIMEOUT": ("test_batches_queues_and_intervals",),
    "OTEL_BLRP_SCHEDULE_DELAY": ("test_batches_queues_and_intervals",),
    "OTEL_BLRP_MAX_QUEUE_SIZE": ("test_batches_queues_and_intervals",),
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": ("test_batches_queues_and_intervals",),
    "OTEL_BLRP_EXPORT_TIMEOUT": ("test_batches_queues_and_intervals",),
    "OTEL_ATTRIBUTE_COUNT_LIMIT": ("test_limits_of_all_signals",),
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("test_limits_of_all_signals",),
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_SPAN_EVENT_COUNT_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_SPAN_LINK_COUNT_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("test_limits_of_one_signal",),
    "OTEL_PYTHON_{TRACER,METER,LOGGER}_PROVIDER": (
        "test_a_provider_that_a_variable_selects_is_offered_what_can_be_observed",
        "test_exporters_that_are_named_win_over_a_provider_that_is_selected",
    ),
    "OTEL_PYTHON_ID_GENERATOR": ("test_credentials_detectors_and_ids",),
    "OTEL_PYTHON_TRACER_CONFIGURATOR": ("test_configurators_of_ones_own",),
    "OTEL_PYTHON_METER_CONFIGURATOR": ("test_configurators_of_ones_own",),
    "OTEL_PYTHON_LOGGER_CONFIGURATOR": ("test_configurators_of_ones_own",),
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": ("test_batches_queues_and_intervals",),
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": ("test_batches_queues_and_intervals",),
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": ("test_credentials_detectors_and_ids",),
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_{TRACES,METRICS,LOGS}_CREDENTIAL_PROVIDER": ("test_credentials_of_each_signal",),
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": ("test_configurators_of_ones_own",),
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_{TRACES,METRICS,LOGS}_CREDENTIAL_PROVIDER": (
        "test_sessions_of_each_signal",
        "test_credentials_detectors_and_ids",
    ),
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": (
        "test_what_the_sdk_cannot_set_up_fails_at_start_with_the_fix",
    ),
}
"""Names of the tests that show the effect of a variable.

A name with alternatives in braces stands for several variables, as in ``nissa.doctor.variables``.
"""

UNUSED: Final = (
    Variable("OTEL_LOG_LEVEL", "The Python SDK does not read it; use the module `logging`."),
    Variable("OTEL_EXPORTER_ZIPKIN_{ENDPOINT,TIMEOUT}", "Its exporter is a separate package, and Zipkin accepts OTLP."),
    Variable("OTEL_PROPAGATORS", "A run sends no requests that could carry a trace context."),
    Variable("OTEL_PYTHON_CONTEXT", "It selects how the context is kept within a process."),
)
"""OpenTelemetry's variables that do not affect a run, with the reason."""
