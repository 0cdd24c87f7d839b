"""Span of a run that was started within the trace of another program, and the link of the run's traces to it."""

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanContext, Status, StatusCode, TraceFlags, TraceState

from nissa.semconv import spans as names

if TYPE_CHECKING:
    from nissa.distributed.trace_context import TraceContext
    from nissa.events import TelemetryEvent
    from nissa.otel.traces.spans import SpanFactory


def span_context(trace: "TraceContext | None") -> SpanContext | None:
    """Return a trace context as OpenTelemetry represents it."""
    if trace is None:
        return None
    state = TraceState.from_header([trace.state]) if trace.state else None
    return SpanContext(
        trace.ids.trace_id, trace.ids.span_id, is_remote=True, trace_flags=TraceFlags(trace.flags), trace_state=state
    )


class RunSpan:
    """Starts and ends the span of the run; without a trace context there is none.

    Args:
        factory: Starts spans.
        parent: Span within which the run was started.
        common: Attributes of every span.
    """

    def __init__(self, factory: "SpanFactory", parent: SpanContext | None, common: dict[str, Any]) -> None:
        self._factory = factory
        self._parent = parent
        self._common = common
        self._span: Span | None = None

    @property
    def context(self) -> SpanContext | None:
        """Context of the span; None without a trace context."""
        return None if self._span is None else self._span.get_span_context()

    def begin(self, event: "TelemetryEvent") -> None:
        """Start the span."""
        if self._parent is not None:
            at = event.time_unix_nano
            self._span = self._factory.start(names.RUN, at, self._common, parent=self._parent)
            self._factory.announce(self._span, names.RUN, at, self._common)

    def end(self, event: "TelemetryEvent") -> None:
        """End the span; its status is an error if an exception or a signal ended the run."""
        if self._span is not None:
            if error := event.data.get("error"):
                self._span.set_status(Status(StatusCode.ERROR, str(error)))
            self._span.end(event.time_unix_nano)
