"""Hears what the SDK's exporters log during an export of ours, keeps it from the screen, and finds the reason in it."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_FORMS: Final = {
    "Failed to export %s to %s, error code": (2, 3),
    "Transient error %s encountered while exporting %s to %s": (0, 4),
    "Failed to export %s batch code": (1, 2),
    "Transient error %s encountered while exporting %s batch": (0,),
}
"""How the messages that tell a reason begin, and which of their arguments are the reason."""
_REFUSALS: Final = frozenset(
    {
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }
)
_NEVER_SENT: Final = ("Dropping ", "Failed to encode ")
_MOST_CHARACTERS: Final = 300


@dataclass(slots=True)
class Attempt:
    """One export, and what was said during it.

    Attributes:
        records: What was logged at WARNING or above.
        error: What it raised.
    """

    records: list[logging.LogRecord] = field(default_factory=list)
    error: Exception | None = None

    @property
    def reason(self) -> str:
        """Why it failed, in words; empty where nothing was said."""
        if self.error is not None:
            return _words(self.error)
        told = [reason for reason in map(_reason, list(self.records)) if reason is not None]
        untold = [record.getMessage() for record in self.records[-1:]]
        return (told or untold or [""])[-1][:_MOST_CHARACTERS]

    @property
    def refused(self) -> bool:
        """Whether the same batch would fail again however often it were sent."""
        return self.error is not None or any(map(_refused, self.records))


_here = threading.local()


@contextmanager
def overheard() -> Iterator[Attempt]:
    """Yield what the SDK says on this thread inside the block; the log has it at DEBUG."""
    attempt = _here.attempt = Attempt()
    try:
        yield attempt
    finally:
        _here.attempt = None


class _Overhear(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        attempt: Attempt | None = getattr(_here, "attempt", None)
        if attempt is None:  # an exporter of the application's own
            return True
        if record.levelno >= logging.WARNING:
            attempt.records.append(record)
        record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


_filter: Final = _Overhear()


def install() -> None:
    """Listen to the loggers of the exporters, from now on; what is logged outside of `overheard` passes untouched."""
    for name in _LOGGERS:
        filters = logging.getLogger(name).filters
        if _filter not in filters:
            filters.insert(0, _filter)  # the SDK's own filter against repetition would keep reasons from us


def uninstall() -> None:
    """Listen no longer."""
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_filter)


def _arguments(record: logging.LogRecord) -> tuple[Any, ...] | None:
    """Return what in a record is a reason, None where it does not say any."""
    args = record.args if isinstance(record.args, tuple) else ()
    for beginning, places in _FORMS.items():
        if str(record.msg).startswith(beginning) and max(places) < len(args):
            return tuple(args[place] for place in places if args[place] not in (None, ""))
    return None


def _reason(record: logging.LogRecord) -> str | None:
    found = _arguments(record)
    return ": ".join(map(_words, found)) if found else None


def _refused(record: logging.LogRecord) -> bool:
    code, *details = _arguments(record) or ("",)
    too_large = any("larger than max" in str(detail) for detail in details)
    # The HTTP exporter tells a status as a number only where another try is no use.
    final = isinstance(code, int) or getattr(code, "name", "") in _REFUSALS
    return final or too_large or str(record.msg).startswith(_NEVER_SENT)


def _words(part: Any) -> str:
    """Return a status code's name, the innermost cause of an HTTP client's error, or the text itself."""
    name = getattr(part, "name", None)
    text = name if isinstance(name, str) else str(part) or type(part).__name__
    return text.rpartition("Caused by ")[2] if "Caused by " in text else text
