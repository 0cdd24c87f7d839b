"""Names of metrics in Prometheus, derived by the rules of its OTLP receiver.

Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility".
"""

import re
from typing import Final

from nissa.semconv.metrics import Kind, MetricSpec

_UNIT_SUFFIXES: Final = {"s": "_seconds", "By": "_bytes"}


def label(attribute: str) -> str:
    """Return the Prometheus label of an attribute: ``nissa.env.id`` becomes ``nissa_env_id``."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)


def series(spec: MetricSpec) -> str:
    """Return the Prometheus series name of a metric; units in braces are annotations and are dropped."""
    name = label(spec.name) + _UNIT_SUFFIXES.get(spec.unit, "")
    return f"{name}_total" if spec.kind is Kind.COUNTER else name
