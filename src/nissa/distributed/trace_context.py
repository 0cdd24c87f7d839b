"""W3C trace context that a launcher passes in the environment: ``TRACEPARENT`` and ``TRACESTATE``."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nissa.distributed.rank import first_proposal
from nissa.events import SpanIds

_logger = logging.getLogger("nissa")

_HEADER: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NONE: Final = "-"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Span of another program within which the run was started.

    Args:
        ids: Trace id and span id.
        flags: Trace flags; the lowest bit is set if the span is sampled.
        state: Value of ``TRACESTATE``; empty if there is none.

    Example:
        >>> str(TraceContext.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    """

    ids: SpanIds
    flags: int
    state: str = ""

    def __str__(self) -> str:
        """Return the value of ``TRACEPARENT``."""
        return f"00-{self.ids.trace_hex}-{self.ids.span_id:016x}-{self.flags:02x}"

    @classmethod
    def parse(cls, header: str, state: str = "") -> "TraceContext | None":
        """Return the context of a ``traceparent`` header; None if it is not valid."""
        found = _HEADER.fullmatch(header.strip())
        if found is None:
            return None
        trace_id, span_id, flags = (int(group, 16) for group in found.groups()[:3])
        return cls(SpanIds(trace_id, span_id), flags, state.strip()) if trace_id and span_id else None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "TraceContext | None":
        """Return the context in the environment; None without one. One that is not valid is ignored, with a warning."""
        header = environ.get("TRACEPARENT", "").strip()
        if not header:
            return None
        context = cls.parse(header, environ.get("TRACESTATE", ""))
        if context is None:
            _logger.warning(
                "TRACEPARENT is %r and therefore ignored; a valid one is 00-<32 hex digits>-<16 hex digits>-01, with ids "
                "other than zero.",
                header,
            )
        return context


def common_trace_context(run_id: str, own: TraceContext | None) -> TraceContext | None:
    """Return one trace context for all ranks of a run: that of the first rank to start it.

    Ranks that a launcher starts on several hosts may have different variables, or none. They agree through the store of
    the process group, and none waits for another. Without a process group, the own context is returned.

    Args:
        run_id: The common id of the run.
        own: Context of this process.
    """
    proposal = _NONE if own is None else f"{own} {own.state}"
    agreed = first_proposal(f"trace_context/{run_id}", proposal)
    if agreed is None or agreed == proposal:
        return own
    context = None if agreed == _NONE else TraceContext.parse(*agreed.split(" ", 1))
    if own is not None and (context is None or context.ids.trace_id != own.ids.trace_id):
        _logger.warning(
            "TRACEPARENT of this rank is not used, because the first rank to start the run has %s. Set the same TRACEPARENT "
            "on all ranks.",
            "none" if context is None else "another one",
        )
    return context
