"""Names of the OpenTelemetry SDK that are not public. No other module uses one.

Each is used because there is no public name for it, and each has a fallback where the SDK is built otherwise. Tests use
all of them with the oldest and the newest release that Nissa supports.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import context

__all__ = [
    "configure_providers",
    "json_log_encoder",
    "metric_readers",
    "protobuf_log_encoder",
    "suppress_instrumentation",
]


def json_log_encoder() -> Any:
    """Return the function that encodes log records as an OTLP request in JSON."""
    from opentelemetry.exporter.otlp.json.common._log_encoder import encode_logs  # noqa: PLC0415 - a run imports one of the two

    return encode_logs


def protobuf_log_encoder() -> Any:
    """Return the function that encodes log records as an OTLP request in protobuf."""
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs  # noqa: PLC0415 - see above

    return encode_logs


def suppress_instrumentation() -> None:
    """Keep instrumented HTTP and gRPC libraries from recording spans on this thread: exports are not the user's work.

    Fallback: they record a span for each export.
    """
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if key is not None:
        context.attach(context.set_value(key, True))


def configure_providers(resource_attributes: "Mapping[str, str] | None") -> None:
    """Build the global providers that ``OTEL_*`` variables describe, as ``opentelemetry-instrument`` does.

    Args:
        resource_attributes: Further attributes of the resource; None for those of a declarative configuration file.
    """
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator  # noqa: PLC0415 - many runs configure no exporter

    configurator: Any = _OTelSDKConfigurator  # the SDK leaves it unannotated
    configurator().configure(**({} if resource_attributes is None else {"resource_attributes": resource_attributes}))


def metric_readers(provider: object) -> Sequence[Any] | None:
    """Return the metric readers of a provider; None where it is built otherwise."""
    found = getattr(provider, "_metric_readers", None)
    return None if found is None else tuple(found)
