"""Metric producer in the sense of the OpenTelemetry specification: adds pre-aggregated metrics to collections.

The Python SDK lacks this interface, so the provider's collection is wrapped (`nissa.otel.compat`). One hook serves all
present and future readers, each with its own temporality. Other providers than the SDK's receive observable instruments
instead.
"""

import os
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import Gauge, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.otel.compat import MeterCollection, limit_batches
from nissa.otel.global_providers import is_real
from nissa.otel.metrics.builder import PointBuilder
from nissa.otel.metrics.observed import ObservedStreams

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.metrics.export import Metric
    from opentelemetry.sdk.resources import Resource

    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.otel.compat import Collect
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
        self._restore_batches: list[Callable[[], None]] = []
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
        refused = self.wrap_collection(provider)
        if refused is None or not is_real(provider):
            return refused
        self._observed.install(provider)
        return None

    def _join_reader(self, reader: "ExportReader") -> None:
        def leave() -> None:
            reader.merge = reader.changed = None

        self._builder.attach(reader)
        reader.merge, reader.changed = self.merge, self.changed
        self._uninstall = leave

    def wrap_collection(self, provider: Any) -> str | None:
        """Add the metrics to the collections of an SDK provider; return the reason why that is impossible, or None."""
        collection = MeterCollection.of(provider)
        if collection is None:
            return (
                f"{type(provider).__module__}.{type(provider).__name__} is not the OpenTelemetry SDK's meter provider"
            )

        def wrapped(original: "Collect") -> "Collect":
            def collect(reader: Any, timeout_millis: float = 10_000) -> MetricsData | None:
                if self._owns_provider and self._forked:  # the SDK's locks may have been held at the fork
                    return None
                self._bound(reader)
                return self.merge(original(reader, timeout_millis), reader, collection.resource)

            return collect

        self._exemplars = collection.has_exemplars
        for reader in collection.readers:
            self._builder.attach(reader)
        self._uninstall = collection.wrap(wrapped)
        return None

    def uninstall(self) -> None:
        """Restore the provider's own collect callbacks and exporter settings."""
        self._observed.uninstall()
        undo, self._uninstall = self._uninstall, None
        if undo is not None:
            undo()
        while self._restore_batches:
            self._restore_batches.pop()()

    def merge(self, data: MetricsData | None, reader: object, resource: "Resource") -> MetricsData | None:
        """Return the metrics that a reader collected, with those of the run added."""
        if self._forked or self._uninstall is None:
            return data
        metrics: list[Metric] = []
        with self._error_boundary.guard("metric collection"):
            metrics = self._builder.metrics(reader, time_ns())
            metrics = metrics if self._exemplars else [_without_exemplars(each) for each in metrics]
        return _merged(data, metrics, self._scope, resource) if metrics else data

    def changed(self, reader: object, resource: "Resource") -> MetricsData | None:
        """Return the run's counters that events have changed since the last call; None if there are none."""
        if self._forked or self._uninstall is None:
            return None
        metrics: list[Metric] = []
        with self._error_boundary.guard("metric collection"):
            metrics = self._builder.changed(reader, time_ns())
        return _merged(None, metrics, self._scope, resource) if metrics else None

    def _bound(self, reader: object) -> None:
        """Set the batch size of an OTLP exporter that has none, because the run's metrics may be large.

        A collector rejects messages above 4 MiB as a whole, including the application's own metrics.
        """
        restore = limit_batches(reader, MOST_POINTS)
        if restore is not None:
            self._restore_batches.append(restore)

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
