"""Fallback for meter providers other than the SDK's: export through observable instruments of the OpenTelemetry API.

Pre-aggregated data cannot be added to such a provider. Its callbacks return the latest value of each gauge and counter
at collection. Points between two collections, timestamps and histograms are lost.
"""

import logging
import os
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.metrics import Observation

from nissa.semconv import metrics as metric
from nissa.semconv.metrics import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.otel.metrics.store import MetricStore
    from nissa.semconv.metrics import MetricSpec

    Source = Callable[[MetricSpec], "list[Observation]"]

_logger = logging.getLogger("nissa")

_LOST: Final = tuple(spec.name for spec in metric.ALL if spec.kind in {Kind.HISTOGRAM, Kind.EXPONENTIAL_HISTOGRAM})


class ObservedStreams:
    """Registers a run's gauges and counters as observable instruments with any meter provider.

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
        """Register the instruments and log the metrics that cannot be exported this way."""
        self._instruments = _instruments(provider, self._scope)
        self._instruments.source = self._observations
        _logger.warning(
            "Metrics of this run are exported to %s.%s through observable instruments: the latest value of each gauge and "
            "count. Observable instruments cannot carry distributions (%s), so these are not exported.",
            type(provider).__module__,
            type(provider).__name__,
            ", ".join(_LOST),
        )

    def uninstall(self) -> None:
        """Stop reporting. The instruments stay registered, because the API cannot remove them."""
        # A later run may have replaced the source; leave that one in place.
        if self._instruments is not None and self._instruments.source == self._observations:
            self._instruments.source = None

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
