"""Span creation with preset trace and span ids and with start times in the past."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer, set_span_in_context

from nissa.events import SpanIds
from nissa.random_ids import new_span_id, new_trace_id
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names


class PresetIds(IdGenerator):
    """Id generator that returns preset ids for the next span and random ids otherwise.

    Only the backend's worker thread uses it, so it needs no lock.
    """

    def __init__(self) -> None:
        self.next: SpanIds | None = None

    def generate_trace_id(self) -> int:
        """Return the preset trace id, else a random one."""
        return self.next.trace_id if self.next else new_trace_id()

    def generate_span_id(self) -> int:
        """Return the preset span id and clear the preset, else a random id."""
        chosen, self.next = self.next, None
        return chosen.span_id if chosen else new_span_id()

    def is_trace_id_random(self) -> bool:
        """Return True: preset ids are random too."""
        return True


class SpanFactory:
    """Starts the spans of a run.

    Args:
        tracer: Tracer of the run. If it is the SDK's, its id generator is replaced.
        announce: Export a zero-length ``.started`` span at the start of long spans.
        within: Span of another program that the run was started in; every root span has a link to it.
    """

    def __init__(self, tracer: Tracer, *, announce: bool, within: SpanContext | None = None) -> None:
        self._tracer = tracer
        self._within = within
        self._announce = announce
        self._ids = PresetIds()
        if hasattr(tracer, "id_generator"):
            tracer.id_generator = self._ids

    def start(
        self,
        name: str,
        at: int,
        attributes: Mapping[str, Any],
        *,
        ids: SpanIds | None = None,
        parent: SpanContext | None = None,
        links: Sequence[SpanContext] = (),
    ) -> Span:
        """Start a span at a time in nanoseconds since the Unix epoch; without a parent it is a root span."""
        self._ids.next = ids
        if parent is None and self._within is not None:
            links = (*links, self._within)
        try:
            return self._tracer.start_span(
                name,
                context=within(parent),
                attributes=present(attributes),
                links=[Link(context) for context in links],
                start_time=at,
            )
        finally:
            self._ids.next = None

    def announce(self, span: Span, name: str, at: int, attributes: Mapping[str, Any]) -> None:
        """Export a zero-length ``.started`` child of a long span, because the span itself is exported at its end."""
        if not self._announce or not span.is_recording():
            return
        twin = self.start(
            name + names.STARTED_SUFFIX, at, {**attributes, attr.SPAN_PENDING: True}, parent=span.get_span_context()
        )
        twin.end(at)


def within(parent: SpanContext | None) -> Context:
    """Return a context with ``parent`` as current span, an empty context for None."""
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())


def remote(ids: SpanIds, *, sampled: bool = True) -> SpanContext:
    """Return the context of a span of which only the ids are known."""
    flags = TraceFlags(TraceFlags.RANDOM_TRACE_ID | (TraceFlags.SAMPLED if sampled else 0))
    return SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=flags)


def present(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes without those that are None, and others as OpenTelemetry accepts them.

    Example: an attribute that is the list ``["a", 1]`` becomes ``["a", "1"]``, since the items of a list need one type.
    """
    return {key: _attribute(value) for key, value in attributes.items() if value is not None}


def _attribute(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    if not isinstance(value, list | tuple):
        return str(value)
    kinds = set(map(type, value))
    return list(value) if len(kinds) == 1 and kinds <= {str, bool, int, float} else [str(each) for each in value]


def end_span(span: Span, at: int) -> None:
    """End a span, but not before its start: the clock of a producer may have been set back meanwhile.

    A viewer would show a span that ends before it starts as one of 584 years.
    """
    start = getattr(span, "start_time", None)
    span.end(at if start is None else max(at, start))
