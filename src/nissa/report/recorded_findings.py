"""Findings and narratives of a run, from its log records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nissa.events import EventType
from nissa.recordings import LogRecord, Recording
from nissa.recordings.values import as_names, as_number, as_whole
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names

WARNING: Final = 13
"""Lowest OTLP severity number of a warning."""

ERROR: Final = 17  # Lowest OTLP severity number of an error.


def event_name(kind: EventType) -> str:
    """Return the name of a hub event in the log records."""
    return names.EVENT_PREFIX + kind.lower()


def detail(attributes: Mapping[str, Any], name: str) -> Any:
    """Return an attribute of a hub event by its short name; None if it is missing."""
    return attributes.get(names.EVENT_PREFIX + name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFinding:
    """Finding of the run.

    Args:
        until: Time at which it was cleared; None if it was not cleared, or is momentary.
        layers: Layers, worst first; those that the event names.
        layer_count: Number of all layers.
        evidence: Numbers, further facts and the first step in one text.
        lasting: The finding is a state that holds until it is cleared, such as a red flag.
    """

    name: str
    series_key: SeriesKey
    time: int
    until: int | None
    lasting: bool
    severity: int
    sentence: str
    advice: str
    certainty: str
    layers: tuple[str, ...]
    layer_count: int
    evidence: str
    epoch: int | None
    step: int | None


@dataclass(frozen=True, slots=True)
class RecordedNarrative:
    """Narrative of a validation."""

    series_key: SeriesKey
    time: int
    epoch: int | None
    text: str
    loss: float | None
    accuracy: float | None


_MOMENTS: Final = {
    event_name(EventType.PLATEAU_DETECTED): "plateau",
    event_name(EventType.PERFORMANCE_DEGRADATION): "performance degradation",
    names.EVENT_ISOLATION: "isolation violation",
    names.EVENT_REFUSED: "refused transition",
}


def findings(recording: Recording) -> list[RecordedFinding]:
    """Return the findings in chronological order."""
    cleared: dict[tuple[SeriesKey, str, Any], list[int]] = {}
    for record in recording.logs:
        if record.name == event_name(EventType.RED_FLAG_CLEARED):
            cleared.setdefault(_flag(record), []).append(record.time)
    found = []
    for record in recording.logs:
        if record.name == event_name(EventType.RED_FLAG_RAISED):
            until = next((time for time in cleared.get(_flag(record), ()) if time >= record.time), None)
            found.append(_finding(record, str(record.attributes.get(attr.RED_FLAG_NAME, "")), until, lasting=True))
        elif record.name in _MOMENTS:
            found.append(_finding(record, _MOMENTS[record.name], None, lasting=False))
    return found


def _flag(record: LogRecord) -> tuple[SeriesKey, str, Any]:
    name = str(record.attributes.get(attr.RED_FLAG_NAME, ""))
    return SeriesKey.of(record.attributes, record.process), name, str(detail(record.attributes, "model"))


def _finding(record: LogRecord, name: str, until: int | None, *, lasting: bool) -> RecordedFinding:
    attributes = record.attributes
    advice = str(attributes.get(attr.FINDING_ADVICE) or "")
    layers = as_names(attributes.get(attr.FINDING_LAYERS))
    return RecordedFinding(
        name=name.replace("_", " "),
        series_key=SeriesKey.of(attributes, record.process),
        time=record.time,
        until=until,
        lasting=lasting,
        severity=record.severity,
        sentence=record.body.removesuffix(advice).strip() or _details(attributes),
        advice=advice,
        certainty=str(attributes.get(attr.FINDING_CERTAINTY) or ""),
        layers=layers,
        layer_count=as_whole(attributes.get(attr.FINDING_LAYER_COUNT)) or len(layers),
        evidence=_evidence(attributes),
        epoch=as_whole(attributes.get(attr.EPOCH)),
        step=as_whole(detail(attributes, "step")),
    )


def _evidence(attributes: Mapping[str, Any]) -> str:
    """Return the numbers that a finding rests on, for example ``value 0.2, limit 0.5; since step 120``."""
    facts = as_names(attributes.get(attr.FINDING_EVIDENCE))
    first = as_whole(attributes.get(attr.FINDING_FIRST_STEP))
    value, limit = attributes.get(attr.FINDING_VALUE), attributes.get(attr.FINDING_LIMIT)
    parts = []
    if value is not None:
        parts.append(f"value {_short(value)}" + ("" if limit is None else f", limit {_short(limit)}"))
    parts += facts[1:]  # the first is the observation
    if first is not None:
        parts.append(f"since step {first:,}")
    return "; ".join(parts)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _details(attributes: Mapping[str, Any]) -> str:
    """Return the attributes of an event that has no text, as ``name value`` pairs."""
    details = {
        name.removeprefix(names.EVENT_PREFIX).replace("_", " "): value
        for name, value in attributes.items()
        if name.startswith(names.EVENT_PREFIX) and name != attr.EVENT_TYPE
    }
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in details.items()
    )


def narratives(recording: Recording) -> list[RecordedNarrative]:
    """Return the narratives in chronological order."""
    return [
        RecordedNarrative(
            series_key=SeriesKey.of(record.attributes, record.process),
            time=record.time,
            epoch=as_whole(record.attributes.get(attr.EPOCH)),
            text=record.body or str(record.attributes.get(attr.NARRATIVE, "")),
            loss=as_number(record.attributes.get(attr.LOSS)),
            accuracy=as_number(record.attributes.get(attr.ACCURACY)),
        )
        for record in recording.logs
        if record.name == names.EVENT_NARRATIVE
    ]
