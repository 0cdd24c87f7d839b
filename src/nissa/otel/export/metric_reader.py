"""Metric reader of a run's own pipeline: the SDK's instruments and the run's pre-aggregated metrics in one collection."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from nissa.errors import UnknownNameError
from nissa.otel.metrics.temporality import Form
from nissa.semconv.metrics import Kind

Merge = Callable[[MetricsData | None, MetricReader, Resource], MetricsData | None]
"""Adds a run's metrics to those that a reader collected."""
Changed = Callable[[MetricReader, Resource], MetricsData | None]
"""Returns those counters of a run that events have changed."""

TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
EXEMPLARS: Final = "OTEL_METRICS_EXEMPLAR_FILTER"
AGGREGATION: Final = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"

_DELTAS: Final[dict[str, tuple[type, ...]]] = {
    "cumulative": (),
    "delta": (Counter, ObservableCounter, Histogram),
    "lowmemory": (Counter, Histogram),
}
_AGGREGATIONS: Final = {
    "explicit_bucket_histogram": ExplicitBucketHistogramAggregation,
    "base2_exponential_bucket_histogram": ExponentialBucketHistogramAggregation,
}
_INSTRUMENTS: Final = (Counter, UpDownCounter, Histogram, ObservableCounter, ObservableUpDownCounter, ObservableGauge)


class ExportReader(MetricReader):
    """Reader that collects when the export thread asks it to.

    Args:
        resource: Resource of the meter provider.
        environ: Variables that select temporality and histogram aggregation.

    Attributes:
        form: Export format, for the run's own metrics.
        exemplars: Whether exemplars are wanted.
        merge: Adds the run's metrics; None while no run is active.
        changed: Returns the run's counters that events have changed; None while no run is active.

    Raises:
        UnknownNameError: A variable has a value that the specification does not know.
    """

    def __init__(self, resource: Resource, environ: Mapping[str, str] = os.environ) -> None:
        preference = _chosen(TEMPORALITY, environ.get(TEMPORALITY) or "cumulative", _DELTAS).lower()
        aggregation = _chosen(AGGREGATION, environ.get(AGGREGATION) or "explicit_bucket_histogram", _AGGREGATIONS)
        deltas = _DELTAS[preference]
        super().__init__(
            preferred_temporality={
                each: AggregationTemporality.DELTA if each in deltas else AggregationTemporality.CUMULATIVE
                for each in _INSTRUMENTS
            },
            preferred_aggregation={Histogram: _AGGREGATIONS[aggregation]()},
        )
        kinds = {Kind.COUNTER, Kind.HISTOGRAM, Kind.EXPONENTIAL_HISTOGRAM} if deltas else set()
        self.form = Form(frozenset(kinds))
        self.exemplars = environ.get(EXEMPLARS, "").strip().lower() != "always_off"
        self.merge: Merge | None = None
        self.changed: Changed | None = None
        self._resource = resource
        self._collected: MetricsData | None = None

    def take(self) -> MetricsData | None:
        """Collect from all instruments, and return the result with the run's metrics added; None if there is nothing."""
        self._collected = None
        self.collect()
        collected, self._collected = self._collected, None
        merge = self.merge
        return collected if merge is None else merge(collected, self, self._resource)

    def take_changed(self) -> MetricsData | None:
        """Return the run's counters that events have changed since the last call; None if there are none."""
        changed = self.changed
        return None if changed is None else changed(self, self._resource)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the SDK's interface
        """Do nothing: the pipeline's flush collects."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Do nothing: the pipeline's end collects once more."""

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> None:  # noqa: ARG002
        self._collected = metrics_data


def _chosen(variable: str, value: str, known: Mapping[str, Any]) -> str:
    chosen = value.strip().lower()
    if chosen not in known:
        raise UnknownNameError(variable, value, known)
    return chosen
