"""What blueprints brought and cost, as gauges."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from nissa.backends.otel.labels import OTHER, Labels
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from nissa.backends.otel.store import MetricStore

_GAUGES: Final = {
    "mean_accuracy_delta": metric.BLUEPRINT_ACCURACY_DELTA,
    "compute_multiplier": metric.BLUEPRINT_COMPUTE_COST,
    "mean_parameters": metric.BLUEPRINT_PARAMETERS,
}


class BlueprintMetrics:
    """Brings what analytics knows of blueprints into the store, before each collection.

    Args:
        store: Where metrics are kept.
        told: Returns what is known of each blueprint, by name.
        now: Wall clock, nanoseconds since the Unix epoch.
        most: Blueprints that get streams of their own; the rest has none, since means of different things say nothing.
    """

    def __init__(
        self,
        store: "MetricStore",
        told: Callable[[], Mapping[str, Mapping[str, Any]]],
        *,
        now: Callable[[], int],
        most: int,
    ) -> None:
        self._store = store
        self._told = told
        self._now = now
        self._labels = Labels(most)

    def refresh(self) -> None:
        """Bring the store up to date."""
        at = self._now()
        for name, told in self._told().items():
            label = self._labels.of(name)
            for key, spec in _GAUGES.items():
                value = told[key]
                if value is not None and label != OTHER:
                    self._store.gauge(spec, {attr.BLUEPRINT_ID: label}, at, value)
