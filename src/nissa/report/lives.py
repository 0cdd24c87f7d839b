"""The lives of seeds, from their traces; a life that has not ended shows by what was announced of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nissa.errors import UnknownNameError
from nissa.events import Stage
from nissa.recordings import LogRecord, Recording, Span
from nissa.report.places import Place
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names

OPEN: Final = "open"
"""Outcome of a seed whose end was not written: its process was killed, or still runs."""

FOSSILIZED: Final = Stage.FOSSILIZED.label
CULLED: Final = Stage.CULLED.label


@dataclass(frozen=True, slots=True)
class StageSpan:
    """A stage of a life; ``end`` is None where it had not ended."""

    stage: Stage
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate decided."""

    name: str
    time: int
    passed: bool
    score: float | None
    failed: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A seed's life, in however many processes.

    Args:
        outcome: ``fossilized``, ``culled``, ``interrupted`` or ``open``.
        improvement: Change of accuracy as a fraction, None where nobody measured it.
        epochs: How many it lived, None where that was not written.
    """

    trace_id: str
    seed_id: str
    place: Place
    slot: str
    blueprint: str
    parameters: int | None
    start: int
    end: int | None
    outcome: str
    improvement: float | None
    reason: str
    epochs: int | None
    attempts: int
    stages: tuple[StageSpan, ...]
    gates: tuple[Gate, ...]


def lives(recording: Recording) -> list[Life]:
    """Return the lives in a recording, by environment and beginning."""
    traces: dict[str, list[Span]] = {}
    for span in recording.spans:
        if span.name == names.SEED or span.name.startswith(names.SEED_STAGE_PREFIX):
            traces.setdefault(span.trace_id, []).append(span)
    decisions: dict[str, list[Gate]] = {}
    for record in recording.logs:
        if record.name == names.EVENT_GATE and record.trace_id:
            decisions.setdefault(record.trace_id, []).append(_gate(record.time, record.attributes))
    found = [_life(trace, decisions.get(trace[0].trace_id)) for trace in traces.values()]
    return sorted((life for life in found if life is not None), key=lambda life: (life.place, life.start))


def _life(trace: Sequence[Span], gates: list[Gate] | None) -> Life | None:
    roots = [span for span in _shown(trace) if _bare(span.name) == names.SEED]
    if not roots:
        return None
    last = max(roots, key=lambda span: span.start)
    told = _told(roots, trace)
    ended = not _pending(last)
    return Life(
        trace_id=last.trace_id,
        seed_id=str(told.get(attr.SEED_ID, "")),
        place=Place.of(last.attributes, last.process),
        slot=str(told.get(attr.SEED_SLOT, "")),
        blueprint=str(told.get(attr.BLUEPRINT_ID, "")),
        parameters=told.get(attr.SEED_PARAMETERS),
        start=min(span.start for span in roots),
        end=last.end if ended else None,
        outcome=str(last.attributes.get(attr.SEED_OUTCOME, OPEN)) if ended else OPEN,
        improvement=told.get(attr.SEED_IMPROVEMENT),
        reason=str(told.get(attr.SEED_CULL_REASON, "")),
        epochs=last.attributes.get(attr.SEED_EPOCHS),
        attempts=len(roots),
        stages=_stages(trace),
        gates=tuple(gates if gates is not None else _noted(trace)),
    )


def _told(roots: Iterable[Span], trace: Iterable[Span]) -> dict[str, Any]:
    """Return what the spans of a life say of the seed, the latest word of a root last."""
    found: dict[str, Any] = {}
    for span in sorted(trace, key=lambda span: span.start):
        found.update(span.attributes)
    for span in sorted(roots, key=lambda span: span.start):
        found.update(span.attributes)
    return found


def _shown(trace: Sequence[Span]) -> list[Span]:
    """Return the spans that ended, and the announcements of those that did not."""
    ended = {span.span_id for span in trace}
    return [span for span in trace if not _pending(span) or span.parent_id not in ended]


def _pending(span: Span) -> bool:
    return bool(span.attributes.get(attr.SPAN_PENDING))


def _bare(name: str) -> str:
    return name.removesuffix(names.STARTED_SUFFIX)


def _stages(trace: Sequence[Span]) -> tuple[StageSpan, ...]:
    found = []
    for span in sorted(_shown(trace), key=lambda span: (span.start, span.end)):
        label = _bare(span.name).removeprefix(names.SEED_STAGE_PREFIX)
        if label != names.SEED:
            found.append(StageSpan(_stage(label), span.start, None if _pending(span) else span.end))
    return tuple(found)


def _stage(label: str) -> Stage:
    try:
        return Stage.parse(label)
    except UnknownNameError:
        return Stage.UNKNOWN


def _noted(trace: Iterable[Span]) -> list[Gate]:
    """Return the gates from the events on spans, where there are no logs."""
    events = [event for span in trace for event in span.events if event.name == names.EVENT_GATE]
    return [_gate(event.time, event.attributes) for event in sorted(events, key=lambda event: event.time)]


def _gate(time: int, attributes: Any) -> Gate:
    return Gate(
        name=str(attributes.get(attr.GATE_NAME, "")),
        time=time,
        passed=bool(attributes.get(attr.GATE_PASSED)),
        score=attributes.get(attr.GATE_SCORE),
        failed=tuple(map(str, attributes.get(attr.GATE_CHECKS_FAILED) or ())),
        message=str(attributes.get(attr.GATE_MESSAGE) or ""),
    )


def refused(recording: Recording) -> list[LogRecord]:
    """Return the changes of stage that were refused."""
    return [record for record in recording.logs if record.name == names.EVENT_REFUSED]
