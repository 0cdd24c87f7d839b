"""Metric producer in the sense of the OpenTelemetry specification: adds pre-aggregated metrics to collections.

The Python SDK lacks this interface (open-telemetry/opentelemetry-python#4768). The reader of the run's own pipeline has it;
every other meter provider receives instruments of the public API, which carry less.
"""

import os
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import Gauge, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.otel.global_providers import is_real
from nissa.otel.metrics.builder import PointBuilder
from nissa.otel.metrics.observed import ObservedStreams
from nissa.semconv.metrics import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.metrics.export import Metric
    from opentelemetry.sdk.resources import Resource

    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.otel.export.metric_reader import ExportReader
    from nissa.otel.metrics.store import MetricStore


class MetricProducer:
    """Adds a run's metrics to the collections of the run's own pipeline; other meter providers get instruments.

    Args:
        store: Metric store of the run.
        scope: Instrumentation scope of the metrics.
        most_buckets: Maximum number of buckets of an exponential histogram point.
        error_boundary: Catches errors of metric collection, so that the application's own metrics are still exported.
    """

    def __init__(
        self, store: "MetricStore", scope: InstrumentationScope, *, most_buckets: int, error_boundary: "ErrorBoundary"
    ) -> None:
        self._builder = PointBuilder(store, most_buckets)
        self._observed = ObservedStreams(store, scope, error_boundary)
        self._scope = scope
        self._error_boundary = error_boundary
        self._pid = os.getpid()  # differs in a forked child, see `_forked`
        self._leave: Callable[[], None] | None = None

    def install(self, provider: Any, reader: "ExportReader | None" = None, *, others: bool = False) -> str | None:
        """Add the metrics to the reader of the run's pipeline; offer instruments to the other readers of a provider.

        Args:
            provider: Meter provider.
            reader: Reader of the run's own pipeline, if it exports metrics.
            others: Whether the provider has other readers beside it.

        Returns:
            Reason why neither was possible, None on success.
        """
        if reader is not None:
            self._join(reader)
        if reader is None or others:
            if not is_real(provider):
                return f"{type(provider).__module__}.{type(provider).__name__} is a meter provider that exports nothing"
            self._observed.install(provider)
        return None

    def _join(self, reader: "ExportReader") -> None:
        def leave() -> None:
            reader.merge = reader.changed = None

        self._builder.attach(reader)
        reader.merge, reader.changed = self.merge, self.changed
        self._leave = leave

    def uninstall(self) -> None:
        """Remove the metrics from the reader or provider; instruments stay registered, without values."""
        self._observed.uninstall()
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def merge(self, data: MetricsData | None, reader: object, resource: "Resource") -> MetricsData | None:
        """Return the metrics that a reader collected, with those of the run added."""
        if self._forked or self._leave is None:
            return data
        metrics: list[Metric] = []
        with self._error_boundary.guard("metric collection"):
            metrics = self._builder.metrics(reader, time_ns())
            if not getattr(reader, "exemplars", True):
                metrics = [_without_exemplars(each) for each in metrics]
        return _merged(data, metrics, self._scope, resource) if metrics else data

    def changed(self, reader: object, resource: "Resource") -> MetricsData | None:
        """Return the run's counters that events have changed since the last call; None if there are none."""
        if self._forked or self._leave is None:
            return None
        metrics: list[Metric] = []
        with self._error_boundary.guard("metric collection"):
            metrics = self._builder.changed(reader, time_ns())
        return _merged(None, metrics, self._scope, resource) if metrics else None

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
    # Instruments that were offered to other readers of the provider are collected here too, and carry less.
    same = [each for of in ours.scope_metrics if of.scope == scope for each in of.metrics if each.name not in BY_NAME]
    merged = replace(ours, scope_metrics=[*scopes, ScopeMetrics(scope, [*same, *metrics], scope.schema_url or "")])
    return MetricsData([merged if each is ours else each for each in resources])
