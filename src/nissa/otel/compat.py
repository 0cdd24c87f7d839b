"""Names of the OpenTelemetry SDK that are not public. No other module uses one.

Each is used because there is no public name for it, and each has a fallback where the SDK is built otherwise. Tests use
all of them with the oldest and the newest release that Nissa supports.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from opentelemetry import context
from opentelemetry.exporter.otlp.json.common._log_encoder import encode_logs as encode_logs_as_json
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricsData
    from opentelemetry.sdk.resources import Resource

__all__ = [
    "MeterCollection",
    "configure_providers",
    "encode_logs",
    "encode_logs_as_json",
    "limit_batches",
    "metric_readers",
    "pulls",
    "suppress_instrumentation",
    "temporality_by_instrument",
]

Collect = Callable[..., "MetricsData | None"]
"""Collects for a metric reader, given the reader and a timeout in milliseconds."""


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
    configurator: Any = _OTelSDKConfigurator  # the SDK leaves it unannotated
    configurator().configure(**({} if resource_attributes is None else {"resource_attributes": resource_attributes}))


def metric_readers(provider: object) -> Sequence[Any]:
    """Return the metric readers of a provider; none where it is built otherwise."""
    return tuple(getattr(provider, "_metric_readers", ()))


def pulls(reader: object) -> bool:
    """Return whether a reader waits until it is asked, as that of Prometheus does, and does not push."""
    return not hasattr(reader, "_exporter")


def temporality_by_instrument(reader: object) -> "Mapping[type, AggregationTemporality]":
    """Return the temporality that a reader exports each class of instrument with; empty where it is built otherwise."""
    found: Mapping[type, AggregationTemporality] = getattr(reader, "_instrument_class_temporality", {})
    return found


def limit_batches(reader: object, points: int) -> Callable[[], None] | None:
    """Set the batch size of a reader's OTLP exporter, if it has none; return what restores it, None if it has one.

    Fallback: an exporter built otherwise keeps its own batches.
    """
    exporter: Any = getattr(reader, "_exporter", None)
    if getattr(exporter, "_max_export_batch_size", points) is not None:
        return None

    def restore() -> None:
        exporter._max_export_batch_size = None

    exporter._max_export_batch_size = points
    return restore


@dataclass(frozen=True, slots=True)
class MeterCollection:
    """Collection of an SDK meter provider, which `wrap` can change.

    The Python SDK lacks the metric producers of the specification (open-telemetry/opentelemetry-python#4768), so that the
    callback between reader and provider is replaced. It serves all present and future readers, and the last collection at
    shutdown too.

    Fallback: `of` returns None, and the caller uses observable instruments of the public API.
    """

    _provider: Any
    _consumer: Any

    @classmethod
    def of(cls, provider: Any) -> Self | None:
        """Return the collection of a meter provider; None where it is built otherwise."""
        consumer = getattr(provider, "_measurement_consumer", None)
        parts = (
            getattr(consumer, "collect", None),
            getattr(consumer, "_reader_storages", None),
            getattr(getattr(provider, "_sdk_config", None), "resource", None),
        )
        return None if None in parts else cls(provider, consumer)

    @property
    def resource(self) -> "Resource":
        """Resource of the provider; a fork changes it."""
        resource: Resource = self._provider._sdk_config.resource
        return resource

    @property
    def readers(self) -> Sequence[Any]:
        """Metric readers that collect."""
        return tuple(self._consumer._reader_storages)

    @property
    def has_exemplars(self) -> bool:
        """Whether the provider's exemplar filter lets any pass."""
        exemplar_filter = getattr(self._provider._sdk_config, "exemplar_filter", None)
        return not isinstance(exemplar_filter, AlwaysOffExemplarFilter)

    def collect(self, reader: object) -> None:
        """Collect for a reader now, without exporting."""
        self._consumer.collect(reader)

    def wrap(self, make: Callable[[Collect], Collect]) -> Callable[[], None]:
        """Replace the callback that collects; return what restores it.

        Args:
            make: Returns the new callback, given the present one.
        """
        consumer = self._consumer
        original = consumer.collect
        collect = make(original)

        def restore() -> None:
            if consumer.collect is collect:  # otherwise another wrapper was installed later; ours is inert by now
                consumer.collect = original
            for reader in self.readers:
                if reader._collect is collect:
                    reader._set_collect_callback(original)

        for reader in self.readers:
            reader._set_collect_callback(collect)
        consumer.collect = collect
        return restore
