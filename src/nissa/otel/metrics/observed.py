"""Export through instruments of the public API: for the application's meter provider, and for exporters that are not OTLP.

Pre-aggregated data cannot be added to a provider. Observable instruments return the latest value of each gauge and counter
at collection; a histogram with explicit buckets receives each value as it is recorded. Gauge points between two
collections, their times, and the exponential histogram of gradients are not exported this way; its percentiles are.
"""

import logging
import os
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.metrics import Observation

from nissa.otel.compat import metric_readers
from nissa.semconv import metrics as metric
from nissa.semconv.metrics import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.otel.metrics.store import MetricStore
    from nissa.semconv.metrics import MetricSpec

    Source = Callable[[MetricSpec], "list[Observation]"]

_logger = logging.getLogger("nissa")

_LOST: Final = tuple(spec.name for spec in metric.ALL if spec.kind is Kind.EXPONENTIAL_HISTOGRAM)


class ObservedStreams:
    """Registers a run's metrics as instruments with any meter provider.

    Args:
        store: Metric store of the run.
        scope: Instrumentation scope of the instruments.
        error_boundary: Catches errors in the callbacks, so that the application's own metrics are still exported.
    """

    def __init__(self, store: "MetricStore", scope: "InstrumentationScope", error_boundary: "ErrorBoundary") -> None:
        self._store = store
        self._scope = scope
        self._error_boundary = error_boundary
        self._pid = os.getpid()
        self._instruments: _Instruments | None = None

    def install(self, provider: Any) -> None:
        """Register the instruments, and log what they do not carry."""
        self._instruments = _instruments(provider, self._scope)
        self._instruments.source = self._observations
        self._store.observers.append(self._record)
        if metric_readers(provider) == ():  # no exporter is configured, so that nothing is lost
            return
        _logger.warning(
            "Metrics of this run go to %s.%s through instruments: the latest value of each gauge at each collection, and no "
            "distributions of gradients (%s), only their percentiles. Export over OTLP to keep every step.",
            type(provider).__module__,
            type(provider).__name__,
            ", ".join(_LOST),
        )

    def uninstall(self) -> None:
        """Stop reporting. The instruments stay registered, because the API cannot remove them."""
        # A later run may have replaced the source; leave that one in place.
        if self._instruments is not None and self._instruments.source == self._observations:
            self._instruments.source = None
        if self._record in self._store.observers:
            self._store.observers.remove(self._record)

    def _record(self, spec: "MetricSpec", attributes: "Mapping[str, Any]", value: float) -> None:
        if self._instruments is not None and os.getpid() == self._pid:
            with self._error_boundary.guard("metric collection"):
                self._instruments.histograms[spec.name].record(value, dict(attributes))

    def _observations(self, spec: "MetricSpec") -> "list[Observation]":
        found: list[Observation] = []
        if os.getpid() == self._pid:  # a forked data loader worker would report its parent's metrics twice
            with self._error_boundary.guard("metric collection"):
                found = [Observation(value, attributes) for value, attributes in self._present(spec)]
        return found

    def _present(self, spec: "MetricSpec") -> "Iterable[tuple[float, dict[str, Any]]]":
        for refresh in self._store.refreshers:
            refresh()
        with self._store.sections, self._store.lock:
            if spec.kind is not Kind.GAUGE:
                return [(each.value, dict(each.attributes)) for each in self._store.sums.get(spec, {}).values()]
            rows = [row for (of, _), group in self._store.gauges.newest().items() if of is spec for row in group]
            return [(value, dict(attributes)) for row in rows for attributes, _, value in row.points()]


class _Instruments:
    """Instruments of one provider, shared by consecutive runs.

    Attributes:
        source: Returns the current observations of a metric for the active run; None between two runs.
        histograms: Histograms with explicit buckets, by name.
    """

    def __init__(self, provider: Any, scope: "InstrumentationScope") -> None:
        self.source: Source | None = None
        meter = provider.get_meter(scope.name, scope.version)
        makers = {
            Kind.GAUGE: meter.create_observable_gauge,
            Kind.COUNTER: meter.create_observable_counter,
            Kind.UP_DOWN_COUNTER: meter.create_observable_up_down_counter,
        }
        for spec in metric.ALL:
            if spec.kind in makers:
                callback = self._callback(spec)
                makers[spec.kind](spec.name, callbacks=[callback], unit=spec.unit, description=spec.description)
        self.histograms = {
            spec.name: meter.create_histogram(
                spec.name,
                unit=spec.unit,
                description=spec.description,
                explicit_bucket_boundaries_advisory=list(spec.bounds),
            )
            for spec in metric.ALL
            if spec.kind is Kind.HISTOGRAM
        }

    def _callback(self, spec: "MetricSpec") -> "Callable[[Any], Iterable[Observation]]":
        def observe(_: Any) -> "Iterable[Observation]":
            return self.source(spec) if self.source is not None else ()

        return observe


# Kept for later runs, because instruments cannot be removed. Weak keys: a discarded provider must be freed.
_known: "WeakKeyDictionary[Any, _Instruments]" = WeakKeyDictionary()


def _instruments(provider: Any, scope: "InstrumentationScope") -> _Instruments:
    """Return the instruments of a provider, created by its first run and reused by later ones."""
    if provider not in _known:
        _known[provider] = _Instruments(provider, scope)
    return _known[provider]
