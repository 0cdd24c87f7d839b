"""Export format of an SDK metric reader: temporality per kind of metric, push or pull."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk.metrics import Counter, Histogram, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality

from nissa.otel.compat import temporality_by_instrument
from nissa.semconv.metrics import Kind

_INSTRUMENTS: Final = {Kind.COUNTER: Counter, Kind.UP_DOWN_COUNTER: UpDownCounter, Kind.HISTOGRAM: Histogram}


@dataclass(frozen=True, slots=True)
class Form:
    """Export format of a metric reader.

    Args:
        deltas: Kinds of metric that it exports with delta temporality.
        pull: The Prometheus exporter, which exports only the latest gauge value and no exponential histograms.
    """

    deltas: frozenset[Kind] = frozenset()
    pull: bool = False

    def temporality(self, kind: Kind) -> AggregationTemporality:
        """Return the temporality in which a kind of metric is exported."""
        return AggregationTemporality.DELTA if kind in self.deltas else AggregationTemporality.CUMULATIVE


def form_of(reader: Any) -> Form:
    """Return the export format of an SDK metric reader."""
    own: Form | None = getattr(reader, "form", None)
    if own is not None:
        return own
    temporality = temporality_by_instrument(reader)
    deltas = {kind for kind, instrument in _INSTRUMENTS.items() if _wants_deltas(temporality, instrument)}
    if Kind.HISTOGRAM in deltas:
        deltas.add(Kind.EXPONENTIAL_HISTOGRAM)
    return Form(frozenset(deltas), pull=type(reader).__module__.startswith("opentelemetry.exporter.prometheus"))


def _wants_deltas(wanted: Mapping[type, AggregationTemporality], instrument: type) -> bool:
    # The SDK keys the mapping by its own subclasses of the public instrument classes.
    found = next((value for kind, value in wanted.items() if issubclass(kind, instrument)), None)
    return found == AggregationTemporality.DELTA
