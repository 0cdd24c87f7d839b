"""Our metric producer, in the sense of the OpenTelemetry specification: pre-aggregated data joins what readers collect.

The Python SDK has no such interface (open-telemetry/opentelemetry-python#4768), so the provider's collect callback is
wrapped: one hook for all its readers, present and future, each with its own temporality, and it runs in the final
collection at shutdown too. What is used of the SDK's private surface is named in `_join` and what it calls, and nowhere
else. A provider that is not the SDK's is offered observable instruments instead.
"""

import os
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter
from opentelemetry.sdk.metrics.export import Gauge, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.backends.otel.builder import PointBuilder
from nissa.backends.otel.observed import ObservedStreams, is_real

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.metrics.export import Metric
    from opentelemetry.sdk.resources import Resource

    from nissa.backends.otel.store import MetricStore
    from nissa.hub.error_boundary import ErrorBoundary


MOST_POINTS: Final = 3_000
"""Data points of one OTLP request: distributions of 160 buckets under long names stay below 4 MiB then."""


class MetricProducer:
    """Adds a run's metrics to what the readers of a meter provider collect.

    Args:
        store: The run's metrics.
        scope: Name and version that they are exported under.
        most_buckets: Buckets of an exponential histogram point.
        error_boundary: Keeps a fault of ours from costing the application its own metrics.
        owns_provider: The provider is ours alone, so that a forked child may be silenced altogether.
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
        self._pid = os.getpid()
        self._exemplars = True
        self._bounded: list[Any] = []
        self._uninstall: Callable[[], None] | None = None

    def install(self, provider: Any) -> str | None:
        """Join a meter provider, or offer it observable instruments; return why neither was possible, else None."""
        refused = self._join(provider)
        if refused is None or not is_real(provider):
            return refused
        self._observed.install(provider)
        return None

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
            if self._owns_provider and self._forked:  # before the SDK takes a lock that was perhaps held at the fork
                return None
            self._bound(metric_reader)
            data: MetricsData | None = original(metric_reader, timeout_millis)
            return self.merge(data, metric_reader, provider._sdk_config.resource)  # noqa: SLF001 - it changes after fork

        def uninstall() -> None:
            if consumer.collect is collect:  # else somebody has wrapped it since, and our part has become inert
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
        """Leave the provider as it was found."""
        self._observed.uninstall()
        undo, self._uninstall = self._uninstall, None
        if undo is not None:
            undo()

    def merge(self, data: MetricsData | None, reader: object, resource: "Resource") -> MetricsData | None:
        """Return what a reader collected, with our metrics added."""
        if self._forked or self._uninstall is None:
            return data
        metrics: list[Metric] = []
        with self._error_boundary.guard("metric collection"):
            metrics = self._builder.metrics(reader, time_ns())
            metrics = metrics if self._exemplars else [_without_exemplars(each) for each in metrics]
        return _merged(data, metrics, self._scope, resource) if metrics else data

    def _bound(self, reader: Any) -> None:
        """Have an OTLP exporter split what it sends, where nobody has told it how: we may add a great deal.

        A collector would refuse all of a message above 4 MiB, the application's metrics with ours.
        """
        exporter = getattr(reader, "_exporter", None)
        if getattr(exporter, "_max_export_batch_size", MOST_POINTS) is None:
            exporter._max_export_batch_size = MOST_POINTS  # type: ignore[union-attr]  # noqa: SLF001 - see above
            self._bounded.append(exporter)

    @property
    def _forked(self) -> bool:
        """Whether this is a child, such as a data loader's worker, that would report its parent's metrics again."""
        return os.getpid() != self._pid


def _without_exemplars(metric: "Metric") -> "Metric":
    data: Any = metric.data
    if isinstance(data, Gauge):  # ours have none
        return metric
    points = [
        replace(point, exemplars=[]) if getattr(point, "exemplars", None) else point for point in data.data_points
    ]
    return replace(metric, data=replace(data, data_points=points))


def _merged(
    data: MetricsData | None, metrics: "list[Metric]", scope: InstrumentationScope, resource: "Resource"
) -> MetricsData:
    """Put metrics under their resource and scope; the encoder silently keeps only the last of two equal ones."""
    resources = list(data.resource_metrics) if data is not None else []
    ours = next((each for each in resources if each.resource == resource), None)
    if ours is None:
        scopes = [ScopeMetrics(scope, metrics, scope.schema_url or "")]
        return MetricsData([*resources, ResourceMetrics(resource, scopes, resource.schema_url)])
    scopes = [each for each in ours.scope_metrics if each.scope != scope]
    same = [metric for each in ours.scope_metrics if each.scope == scope for metric in each.metrics]
    merged = replace(ours, scope_metrics=[*scopes, ScopeMetrics(scope, [*same, *metrics], scope.schema_url or "")])
    return MetricsData([merged if each is ours else each for each in resources])
