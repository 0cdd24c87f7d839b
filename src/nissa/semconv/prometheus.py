"""What a metric is called in Prometheus, derived by the rules of its OTLP receiver.

Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility".
"""

import re
from typing import Final

from nissa.semconv.metrics import Kind, MetricSpec

_UNIT_SUFFIXES: Final = {"s": "_seconds", "By": "_bytes"}


def label(attribute: str) -> str:
    """Return the label that an attribute becomes."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)


def series(spec: MetricSpec) -> str:
    """Return the series name that a metric becomes; units in braces are annotations and vanish."""
    name = label(spec.name) + _UNIT_SUFFIXES.get(spec.unit, "")
    return f"{name}_total" if spec.kind is Kind.COUNTER else name
