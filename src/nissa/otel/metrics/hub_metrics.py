"""Self-monitoring metrics: events delivered, dropped, failed or rejected by the hub, queue sizes, dropped samples."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.cardinality import CardinalityLimiter

if TYPE_CHECKING:
    from nissa.config.sections import LimitsConfig
    from nissa.hub.hub import NissaHub
    from nissa.otel.metrics.store import MetricStore

_Key = tuple[str, str, str]


class HubMetrics:
    """Copies the counters of the hub and the readback into the metric store before each collection.

    Args:
        store: Metric store of the run.
        hub: Hub to monitor. Its counters may include earlier runs; their values at construction are subtracted.
        dropped: Returns the number of sampled steps that the readback dropped.
        now: Wall clock, nanoseconds since the Unix epoch.
        limits: Maximum number of event types and of backends with streams of their own.
    """

    def __init__(
        self,
        store: "MetricStore",
        hub: "NissaHub",
        *,
        dropped: Callable[[], int],
        now: Callable[[], int],
        limits: "LimitsConfig",
    ) -> None:
        self._store = store
        self._hub = hub
        self._dropped = dropped
        self._now = now
        self._types = CardinalityLimiter(limits.max_event_types, "types of event", "limits.max_event_types")
        self._backends = CardinalityLimiter(limits.max_backends, "backends", "limits.max_backends")
        # The hub may outlive a run, so counts of earlier runs are subtracted.
        self._before = self._counts()

    def refresh(self) -> None:
        """Update the counts and gauges of the store."""
        totals: Counter[_Key] = Counter()
        for (backend, kind, outcome), count in (self._counts() - self._before).items():
            label = self._backends.label(backend) if backend else ""
            totals[label, self._types.label(kind), outcome] += count
        for (backend, kind, outcome), count in totals.items():
            name = {attr.BACKEND_NAME: backend} if backend else {}
            labels = {**name, attr.EVENT_TYPE: kind, attr.EVENT_OUTCOME: outcome}
            self._store.set_total(metric.HUB_EVENTS, labels, count)
        for backend, size in self._hub.queue_sizes().items():
            if self._backends.own(backend) is None:
                continue
            self._store.gauge(metric.HUB_QUEUE_SIZE, {attr.BACKEND_NAME: backend}, self._now(), size)
        self._store.set_total(metric.READBACK_DROPPED, {}, self._dropped())

    def _counts(self) -> Counter[_Key]:
        return Counter({(each.backend, each.kind, each.outcome): each.count for each in self._hub.deliveries()})
