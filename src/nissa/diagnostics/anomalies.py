"""Gradients that need a look right now: one event when a trouble begins, not one per step while it lasts."""

from typing import TYPE_CHECKING, Any, Final

from nissa.events import EventType, Severity, TelemetryEvent

if TYPE_CHECKING:
    from nissa.hub.measurements import GradientsMeasured

_KINDS: Final = {
    "nonfinite": (Severity.ERROR, "Gradients are not finite"),
    "exploding": (Severity.WARNING, "Gradients explode"),
    "vanishing": (Severity.WARNING, "Gradients vanish"),
}
_MOST_NAMED: Final = 5


class AnomalyWatch:
    """Remembers which troubles each model is in."""

    def __init__(self) -> None:
        self._holding: dict[tuple[str | None, str | None], set[str]] = {}

    def begins(self, sample: "GradientsMeasured") -> list[TelemetryEvent]:
        """Return an event for each trouble that begins with a sample."""
        now = {kind for kind in _KINDS if getattr(sample.health, kind)}
        key = (sample.env_id, sample.model_name)
        new = now - self._holding.get(key, set())
        self._holding[key] = now
        return [_event(sample, kind) for kind in _KINDS if kind in new]


def _event(sample: "GradientsMeasured", kind: str) -> TelemetryEvent:
    severity, sentence = _KINDS[kind]
    layers: tuple[str, ...] = getattr(sample.health, kind)
    named = ", ".join(layers[:_MOST_NAMED]) + (", ..." if len(layers) > _MOST_NAMED else "")
    data: dict[str, Any] = {"anomaly": kind, "layers": list(layers[:_MOST_NAMED]), "layer_count": len(layers)}
    return TelemetryEvent(
        EventType.GRADIENT_ANOMALY,
        env_id=sample.env_id,
        data=data | {"step": sample.step, "model": sample.model_name},
        message=f"{sentence} in {len(layers)} of {sample.health.layers} layers at step {sample.step}: {named}",
        severity=severity,
        time_unix_nano=sample.time_unix_nano,
    )
