"""Counts of the hub as metrics."""

from nissa.config import TelemetryConfig
from nissa.events import TelemetryEvent
from nissa.hub.hub import NissaHub
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.hub_metrics import HubMetrics
from nissa.otel.metrics.store import MetricStore
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric


class Quiet:
    """A backend that does nothing."""

    def emit(self, event: TelemetryEvent) -> None:
        """Take an event."""


def test_backends_have_streams_up_to_the_bound_and_the_rest_is_counted_together() -> None:
    hub, store = NissaHub(), MetricStore(0, GaugeLog(100))
    limits = TelemetryConfig.from_profile("minimal", {"limits": {"max_backends": 2}}).limits
    metrics = HubMetrics(store, hub, dropped=lambda: 0, now=lambda: 1, limits=limits)
    for number in range(5):
        hub.add_backend(Quiet(), f"b{number}")
    hub.emit(TelemetryEvent("X"))
    assert hub.close()
    metrics.refresh()
    counted = {stream.attributes[attr.BACKEND_NAME]: stream.value for stream in store.sums[metric.HUB_EVENTS].values()}
    assert counted == {"b0": 1, "b1": 1, "other": 3}
    rows = [row for rows in store.gauges.newest().values() for row in rows]
    shown = {attributes[attr.BACKEND_NAME] for row in rows for attributes, _, _ in row.points()}
    assert shown == {"b0", "b1"}
