"""Export format of a metric reader: temporality per kind of metric."""

from dataclasses import dataclass

from opentelemetry.sdk.metrics.export import AggregationTemporality

from nissa.semconv.metrics import Kind


@dataclass(frozen=True, slots=True)
class Form:
    """Export format of a metric reader.

    Args:
        deltas: Kinds of metric that it exports with delta temporality.
    """

    deltas: frozenset[Kind] = frozenset()

    def temporality(self, kind: Kind) -> AggregationTemporality:
        """Return the temporality in which a kind of metric is exported."""
        return AggregationTemporality.DELTA if kind in self.deltas else AggregationTemporality.CUMULATIVE
