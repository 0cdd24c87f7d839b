"""Metric producer in the sense of the OpenTelemetry specification: adds pre-aggregated metrics to collections.

The Python SDK lacks this interface (open-telemetry/opentelemetry-python#4768), so the provider's collect callback is
wrapped. One hook serves all present and future readers, each with its own temporality, and it also runs in the final
collection at shutdown. Private attributes of the SDK are used only in `_join` and the functions that it calls. Other
providers than the SDK's receive observable instruments instead.
"""

import os
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter
from opentelemetry.sdk.metrics.export import Gauge, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.otel.metrics.builder import PointBuilder
from nissa.otel.metrics.observed import ObservedStreams, is_real

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.metrics.export import Metric
    from opentelemetry.sdk.resources import Resource

    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.otel.export.metric_reader import ExportReader
    from nissa.otel.metrics.store import MetricStore


MOST_POINTS: Final = 3_000
"""Data points per OTLP request; histograms of 160 buckets with long attributes then stay below 4 MiB."""


class MetricProducer:
    """Adds a run's metrics to the collections of a meter provider's readers.

    Args:
        store: Metric store of the run.
        scope: Instrumentation scope of the metrics.
        most_buckets: Maximum number of buckets of an exponential histogram point.
        error_boundary: Catches errors of metric collection, so that the application's own metrics are still exported.
        owns_provider: The provider belongs to the run alone, so a forked child collects nothing from it.
    """

    def __init__(
        self,
        store: "MetricStore",
        scope: InstrumentationScope,
        *,
        most_buckets: int,
        error_boundary: "ErrorBoundary",
        owns_provider: bool,
    ) -> None:
        self._builder = PointBuilder(store, most_buckets)
        self._observed = ObservedStreams(store, scope, error_boundary)
        self._scope = scope
        self._error_boundary = error_boundary
        self._owns_provider = owns_provider
        self._pid = os.getpid()  # differs in a forked child, see `_forked`
        self._exemplars = True  # False if the provider's exemplar filter is always off
        # Exporters whose batch size was set here; `uninstall` restores them.
        self._bounded: list[Any] = []
        self._uninstall: Callable[[], None] | None = None

    def install(self, provider: Any, reader: "ExportReader | None" = None) -> str | None:
        """Add the metrics to the reader of the run's pipeline; otherwise wrap the provider's collection.

        Args:
            provider: Meter provider; one that is not the SDK's receives observable instruments.
            reader: Reader of the run's own pipeline, if it exports metrics and is the provider's only one.

        Returns:
            Reason why neither was possible, None on success.
        """
        if reader is not None:
            self._join_reader(reader)
            return None
        refused = self._join(provider)
        if refused is None or not is_real(provider):
            return refused
        self._observed.install(provider)
        return None

    def _join_reader(self, reader: "ExportReader") -> None:
        def leave() -> None:
            reader.merge = None

        self._builder.attach(reader)
        reader.merge = self.merge
        self._uninstall = leave

    def _join(self, provider: Any) -> str | None:
        consumer = getattr(provider, "_measurement_consumer", None)
        original = getattr(consumer, "collect", None)
        readers = getattr(consumer, "_reader_storages", None)
        resource = getattr(getattr(provider, "_sdk_config", None), "resource", None)
        if consumer is None or original is None or readers is None or resource is None:
            return (
                f"{type(provider).__module__}.{type(provider).__name__} is not the OpenTelemetry SDK's meter provider"
            )

        def collect(metric_reader: Any, timeout_millis: float = 10_000) -> MetricsData | None:
            if self._owns_provider and self._forked:  # the SDK's locks may have been held at the fork
                return None
            self._bound(metric_reader)
            data: MetricsData | None = original(metric_reader, timeout_millis)
            return self.merge(data, metric_reader, provider._sdk_config.resource)  # noqa: SLF001 - it changes after fork

        def uninstall() -> None:
            if consumer.collect is collect:  # otherwise another wrapper was installed later; ours is inert by now
                consumer.collect = original
            for reader in list(consumer._reader_storages):  # noqa: SLF001 - see the module docstring
                if reader._collect is collect:  # noqa: SLF001
                    reader._set_collect_callback(original)  # noqa: SLF001
            while self._bounded:
                self._bounded.pop()._max_export_batch_size = None  # noqa: SLF001

        exemplar_filter = getattr(provider._sdk_config, "exemplar_filter", None)  # noqa: SLF001
        self._exemplars = not isinstance(exemplar_filter, AlwaysOffExemplarFilter)
        for reader in list(readers):
            self._builder.attach(reader)
            reader._set_collect_callback(collect)  # noqa: SLF001
        consumer.collect = collect
        self._uninstall = uninstall
        return None

    def uninstall(self) -> None:
        """Restore the provider's own collect callbacks and exporter settings."""
        self._observed.uninstall()
        undo, self._uninstall = self._uninstall, None
        if undo is not None:
            undo()

    def merge(self, data: MetricsData | None, reader: object, resource: "Resource") -> MetricsData | None:
        """Return the metrics that a reader collected, with those of the run added."""
        if self._forked or self._uninstall is None:
            return data
        metrics: list[Metric] = []
        with self._error_boundary.guard("metric collection"):
            metrics = self._builder.metrics(reader, time_ns())
            metrics = metrics if self._exemplars else [_without_exemplars(each) for each in metrics]
        return _merged(data, metrics, self._scope, resource) if metrics else data

    def _bound(self, reader: Any) -> None:
        """Set the batch size of an OTLP exporter that has none, because the run's metrics may be large.

        A collector rejects messages above 4 MiB as a whole, including the application's own metrics.
        """
        exporter = getattr(reader, "_exporter", None)
        if getattr(exporter, "_max_export_batch_size", MOST_POINTS) is None:
            exporter._max_export_batch_size = MOST_POINTS  # type: ignore[union-attr]  # noqa: SLF001 - see above
            self._bounded.append(exporter)

    @property
    def _forked(self) -> bool:
        """Whether this process is a fork (a data loader worker), which would report its parent's metrics twice."""
        return os.getpid() != self._pid


def _without_exemplars(metric: "Metric") -> "Metric":
    data: Any = metric.data
    if isinstance(data, Gauge):  # gauges of the run have no exemplars
        return metric
    points = [
        replace(point, exemplars=[]) if getattr(point, "exemplars", None) else point for point in data.data_points
    ]
    return replace(metric, data=replace(data, data_points=points))


def _merged(
    data: MetricsData | None, metrics: "list[Metric]", scope: InstrumentationScope, resource: "Resource"
) -> MetricsData:
    """Add metrics to their resource and scope.

    Equal resources and scopes are merged, because the encoder keeps only the last of two equal ones.
    """
    resources = list(data.resource_metrics) if data is not None else []
    ours = next((each for each in resources if each.resource == resource), None)
    if ours is None:
        scopes = [ScopeMetrics(scope, metrics, scope.schema_url or "")]
        return MetricsData([*resources, ResourceMetrics(resource, scopes, resource.schema_url)])
    scopes = [each for each in ours.scope_metrics if each.scope != scope]
    same = [metric for each in ours.scope_metrics if each.scope == scope for metric in each.metrics]
    merged = replace(ours, scope_metrics=[*scopes, ScopeMetrics(scope, [*same, *metrics], scope.schema_url or "")])
    return MetricsData([merged if each is ours else each for each in resources])
