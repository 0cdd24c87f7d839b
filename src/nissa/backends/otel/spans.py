"""Starting spans whose identity was decided elsewhere, at times that lie in the past."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer, set_span_in_context

from nissa.backends.otel.random_isolation import PRIVATE
from nissa.events import SpanIds
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names


class PresetIds(IdGenerator):
    """Gives the next span the identity that was decided for it, others a random one.

    Used from the backend's thread only.
    """

    def __init__(self) -> None:
        self.next: SpanIds | None = None

    def generate_trace_id(self) -> int:
        """Return the next span's trace id."""
        return self.next.trace_id if self.next else PRIVATE.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        """Return the next span's id."""
        chosen, self.next = self.next, None
        return chosen.span_id if chosen else PRIVATE.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        """Return True: the preset ones are random too."""
        return True


class SpanFactory:
    """Starts the spans of a run.

    Args:
        tracer: Ours; where it is the SDK's, it takes identities from us.
        announce: Whether long spans send a ``.started`` twin.
    """

    def __init__(self, tracer: Tracer, *, announce: bool) -> None:
        self._tracer = tracer
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
        """Start a span at a time in nanoseconds since the Unix epoch; a root where it has no parent."""
        self._ids.next = ids
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
        """Send a zero-length twin of a span that will last, as its child, so that it shows before it ends."""
        if not self._announce or not span.is_recording():
            return
        twin = self.start(
            name + names.STARTED_SUFFIX, at, {**attributes, attr.SPAN_PENDING: True}, parent=span.get_span_context()
        )
        twin.end(at)


def within(parent: SpanContext | None) -> Context:
    """Return a context whose current span is a given one; an empty one where it is None."""
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())


def remote(ids: SpanIds, *, sampled: bool = True) -> SpanContext:
    """Return the context of a span that is known by its identity only."""
    flags = TraceFlags(TraceFlags.RANDOM_TRACE_ID | (TraceFlags.SAMPLED if sampled else 0))
    return SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=flags)


def present(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that have a value."""
    return {key: value for key, value in attributes.items() if value is not None}
