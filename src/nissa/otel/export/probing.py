"""Registration of an empty metric producer with a meter provider, for `nissa doctor`."""

from dataclasses import dataclass
from time import time_ns
from typing import Any

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.hub.error_boundary import ErrorBoundary
from nissa.otel.compat import MeterCollection, metric_readers, pulls
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.store import MetricStore


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of joining a meter provider.

    Args:
        kind: Module and class of the provider.
        refused: Why our metrics cannot join it; None where they do.
        readers: How many of its readers asked for them.
        pulled: Whether one of the readers waits to be asked, as Prometheus's does.
    """

    kind: str
    refused: str | None
    readers: int
    pulled: bool


def join(meter: Any) -> Joined:
    """Join a meter provider as a run does, let each of its readers collect once, and leave it again.

    Nothing is exported: there are no metrics in what joins.
    """
    asked: list[None] = []
    store = MetricStore(time_ns(), GaugeLog(1))
    store.refreshers.append(lambda: asked.append(None))
    scope = InstrumentationScope("nissa")
    producer = MetricProducer(store, scope, most_buckets=160, error_boundary=ErrorBoundary(), owns_provider=False)
    refused = producer.wrap_collection(meter)  # `install` would offer instruments, which cannot be taken back
    readers = metric_readers(meter)
    collection = MeterCollection.of(meter)
    try:
        for reader in readers:
            if collection is not None:
                collection.collect(reader)
    finally:
        producer.uninstall()
    pulled = any(map(pulls, readers))
    return Joined(f"{type(meter).__module__}.{type(meter).__name__}", refused, len(asked), pulled)
