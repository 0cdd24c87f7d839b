"""Metrics of the run's own export: what became of each item, and the size of the journal."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from nissa.otel.export.building import BuiltPipeline
    from nissa.otel.metrics.store import MetricStore


class ExportMetrics:
    """Copies the counts of a pipeline into the metric store before each collection.

    Args:
        store: Metric store of the run.
        built: Pipeline of the run. It may include earlier runs; their counts are subtracted.
        now: Wall clock, nanoseconds since the Unix epoch.
    """

    def __init__(self, store: "MetricStore", built: "BuiltPipeline", *, now: Callable[[], int]) -> None:
        self._store = store
        self._built = built
        self._now = now
        self._before = dict(built.log.counts)

    def refresh(self) -> None:
        """Update the counts and the size."""
        for (signal, outcome), count in self._built.log.counts.items():
            labels = {attr.SIGNAL: signal, attr.EXPORT_OUTCOME: outcome}
            self._store.set_total(metric.EXPORT_ITEMS, labels, count - self._before.get((signal, outcome), 0))
        self._store.gauge(metric.JOURNAL_SIZE, {}, self._now(), self._built.pipeline.sink.size_bytes)
