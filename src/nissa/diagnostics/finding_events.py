"""Conversion of findings to events."""

from typing import Any, Final

from nissa.diagnostics.finding import MOST_LAYERS, Finding
from nissa.diagnostics.rules import RULES
from nissa.events import EventType, Severity, TelemetryEvent

_ANOMALIES: Final = {rule.name: rule.anomaly for rule in RULES if rule.anomaly is not None}


def events_of(finding: Finding, *, env_id: str | None) -> list[TelemetryEvent]:
    """Return the event of a raised or cleared flag; for a raised flag about gradients a GRADIENT_ANOMALY too.

    Args:
        finding: Finding of a rule.
        env_id: Id of the environment.
    """
    data: dict[str, Any] = {
        "flag": finding.name,
        "up": finding.up,
        "certainty": str(finding.certainty),
        "advice": finding.advice,
        "evidence": [finding.seen, *finding.evidence] if finding.raised else None,
        "layers": list(finding.layers[:MOST_LAYERS]) or None,
        "layer_count": len(finding.layers) or None,
        "value": finding.value,
        "limit": finding.limit,
        "model": finding.model_name,
        "step": finding.step,
        "first_step": finding.first_step,
    }
    change = _event(EventType.RED_FLAG_RAISED if finding.raised else EventType.RED_FLAG_CLEARED, finding, env_id, data)
    anomaly = _ANOMALIES.get(finding.name)
    if anomaly is None or not finding.raised:
        return [change]
    details = {name: data[name] for name in ("layers", "layer_count", "step", "model")}
    return [change, _event(EventType.GRADIENT_ANOMALY, finding, env_id, {"anomaly": anomaly, **details})]


def _event(kind: EventType, finding: Finding, env_id: str | None, data: dict[str, Any]) -> TelemetryEvent:
    return TelemetryEvent(
        kind,
        env_id=env_id,
        epoch=finding.epoch,
        data={name: value for name, value in data.items() if value is not None},
        message=finding.sentence if finding.raised else finding.seen,
        severity=finding.severity if finding.raised else Severity.INFO,
        time_unix_nano=finding.time_unix_nano,
    )
