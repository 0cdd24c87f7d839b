"""Attributes of a finding on its log-based Event and on its span."""

from typing import TYPE_CHECKING, Any, Final

from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent

_KEYS: Final = {
    "evidence": attr.FINDING_EVIDENCE,
    "layers": attr.FINDING_LAYERS,
    "layer_count": attr.FINDING_LAYER_COUNT,
    "value": attr.FINDING_VALUE,
    "limit": attr.FINDING_LIMIT,
    "certainty": attr.FINDING_CERTAINTY,
    "advice": attr.FINDING_ADVICE,
    "first_step": attr.FINDING_FIRST_STEP,
}

FINDING_DATA: Final = frozenset(_KEYS)
"""Entries of an event's data that `finding_attributes` converts."""


def finding_attributes(event: "TelemetryEvent") -> dict[str, Any]:
    """Return layers, numbers, first step, evidence and advice of a finding as attributes.

    Metrics have none of them: there, a finding is a flag and its name.
    """
    return {key: event.data.get(name) for name, key in _KEYS.items()}
