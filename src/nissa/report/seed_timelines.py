"""Timelines of seeds, from their traces.

A seed that has not ended has no finished span. Its timeline comes from the ``.started`` span written at the beginning.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nissa.errors import UnknownNameError
from nissa.events import Stage
from nissa.recordings import LogRecord, Recording, Span
from nissa.recordings.values import as_names, as_number, as_whole
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names

OPEN: Final = "open"
"""Outcome of a seed without a recorded end: its process was killed or is still running."""

FOSSILIZED: Final = Stage.FOSSILIZED.label
CULLED: Final = Stage.CULLED.label


@dataclass(frozen=True, slots=True)
class StageSpan:
    """Stage in a seed's timeline; ``end`` is None if it has not ended."""

    stage: Stage
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class GateMark:
    """Result of a gate."""

    name: str
    time: int
    passed: bool
    score: float | None
    failed: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedTimeline:
    """Timeline of a seed, across all processes of a resumed run.

    Args:
        outcome: ``fossilized``, ``culled``, ``interrupted`` or ``open``.
        improvement: Change of accuracy as a fraction; None if it was not measured.
        epochs: Number of epochs from germination to the end; None if it was not recorded.
    """

    trace_id: str
    seed_id: str
    series_key: SeriesKey
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
    gates: tuple[GateMark, ...]


def timelines(recording: Recording) -> list[SeedTimeline]:
    """Return the timelines of all seeds, sorted by environment and start."""
    traces: dict[str, list[Span]] = {}
    for span in recording.spans:
        if span.name == names.SEED or span.name.startswith(names.SEED_STAGE_PREFIX):
            traces.setdefault(span.trace_id, []).append(span)
    decisions: dict[str, list[GateMark]] = {}
    for record in recording.logs:
        if record.name == names.EVENT_GATE and record.trace_id:
            decisions.setdefault(record.trace_id, []).append(_gate(record.time, record.attributes))
    found = [_timeline(trace, decisions.get(trace[0].trace_id)) for trace in traces.values()]
    return sorted(
        (timeline for timeline in found if timeline is not None),
        key=lambda timeline: (timeline.series_key, timeline.start),
    )


def _timeline(trace: Sequence[Span], gates: list[GateMark] | None) -> SeedTimeline | None:
    roots = [span for span in _shown(trace) if _bare(span.name) == names.SEED]
    if not roots:
        return None
    last = max(roots, key=lambda span: span.start)
    attributes = _merged_attributes(roots, trace)
    ended = not _pending(last)
    return SeedTimeline(
        trace_id=last.trace_id,
        seed_id=str(attributes.get(attr.SEED_ID, "")),
        series_key=SeriesKey.of(last.attributes, last.process),
        slot=str(attributes.get(attr.SEED_SLOT, "")),
        blueprint=str(attributes.get(attr.BLUEPRINT_ID, "")),
        parameters=as_whole(attributes.get(attr.SEED_PARAMETERS)),
        start=min(span.start for span in roots),
        end=last.end if ended else None,
        outcome=str(last.attributes.get(attr.SEED_OUTCOME, OPEN)) if ended else OPEN,
        improvement=as_number(attributes.get(attr.SEED_IMPROVEMENT)),
        reason=str(attributes.get(attr.SEED_CULL_REASON, "")),
        epochs=as_whole(last.attributes.get(attr.SEED_EPOCHS)),
        attempts=len(roots),
        stages=_stages(trace),
        gates=tuple(gates if gates is not None else _noted(trace)),
    )


def _merged_attributes(roots: Iterable[Span], trace: Iterable[Span]) -> dict[str, Any]:
    """Merge the attributes of a seed's spans; root spans override stage spans, later spans override earlier ones."""
    found: dict[str, Any] = {}
    for span in sorted(trace, key=lambda span: span.start):
        found.update(span.attributes)
    for span in sorted(roots, key=lambda span: span.start):
        found.update(span.attributes)
    return found


def _shown(trace: Sequence[Span]) -> list[Span]:
    """Return the finished spans, and the ``.started`` spans of those that have not finished."""
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


def _noted(trace: Iterable[Span]) -> list[GateMark]:
    """Return the gate results from span events; used if no logs were recorded."""
    events = [event for span in trace for event in span.events if event.name == names.EVENT_GATE]
    return [_gate(event.time, event.attributes) for event in sorted(events, key=lambda event: event.time)]


def _gate(time: int, attributes: Any) -> GateMark:
    return GateMark(
        name=str(attributes.get(attr.GATE_NAME, "")),
        time=time,
        passed=bool(attributes.get(attr.GATE_PASSED)),
        score=as_number(attributes.get(attr.GATE_SCORE)),
        failed=as_names(attributes.get(attr.GATE_CHECKS_FAILED)),
        message=str(attributes.get(attr.GATE_MESSAGE) or ""),
    )


def refused(recording: Recording) -> list[LogRecord]:
    """Return the log records of refused stage transitions."""
    return [record for record in recording.logs if record.name == names.EVENT_REFUSED]
