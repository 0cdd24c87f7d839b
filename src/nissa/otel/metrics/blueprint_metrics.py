"""Gauges per blueprint: mean accuracy delta, compute cost, mean number of parameters."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.cardinality import CardinalityLimiter

if TYPE_CHECKING:
    from nissa.otel.metrics.store import MetricStore

_GAUGES: Final = {
    "mean_accuracy_delta": metric.BLUEPRINT_ACCURACY_DELTA,
    "compute_multiplier": metric.BLUEPRINT_COMPUTE_COST,
    "mean_parameters": metric.BLUEPRINT_PARAMETERS,
}


class BlueprintMetrics:
    """Copies the blueprint statistics of the analytics into the metric store before each collection.

    Args:
        store: Metric store of the run.
        statistics: Returns the statistics of each blueprint, by blueprint name.
        now: Wall clock, nanoseconds since the Unix epoch.
        most: Maximum number of blueprints with gauges. Further ones have none: a mean over different blueprints is
            meaningless.
    """

    def __init__(
        self,
        store: "MetricStore",
        statistics: Callable[[], Mapping[str, Mapping[str, Any]]],
        *,
        now: Callable[[], int],
        most: int,
    ) -> None:
        self._store = store
        self._statistics = statistics
        self._now = now
        self._labels = CardinalityLimiter(most, "blueprints", "limits.max_blueprints")

    def refresh(self) -> None:
        """Update the gauges of the store."""
        at = self._now()
        for name, statistics in self._statistics().items():
            label = self._labels.own(name)
            for key, spec in _GAUGES.items() if label is not None else ():
                value = statistics[key]
                if value is not None:
                    self._store.gauge(spec, {attr.BLUEPRINT_ID: label}, at, value)
