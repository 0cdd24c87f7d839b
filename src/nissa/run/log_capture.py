"""Log records and torch's warnings of the process, as events in the trace of the open epoch."""

import logging
import os
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import torch

from nissa.events import EventType, Severity

if TYPE_CHECKING:
    from nissa.events import SpanIds
    from nissa.run.runtime import Runtime

_OWN: Final = ("nissa", "opentelemetry", "urllib3", "grpc")
"""Loggers of the export itself. A record of theirs that is exported would cause the next one."""

_OWN_THREADS: Final = "nissa-"
"""Prefix of Nissa's threads. They call backends of the user, which may log each event that they receive."""

_TORCH: Final = str(Path(torch.__file__).parent)

_MOST_WARNINGS: Final = 100
"""Maximum number of different warnings of a run."""


class LogCapture:
    """Records what the process logs, and the warnings that torch issues, until the end of the run.

    Log records are seen where ``logging`` creates them. A handler of the root logger would change the output of a script
    that has none: ``logging.basicConfig()`` then does nothing. No lock is taken but that of the hub, for an instant, and
    inside a critical section the hub defers the event.

    Args:
        runtime: Components of the run.
    """

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._pid = os.getpid()
        self._level = logging.getLevelNamesMapping()[runtime.config.logs.level]
        self._make_record: Any = logging.getLogRecordFactory()
        self._show_warning: Any = warnings.showwarning
        self._seen: set[tuple[str, str, int, str]] = set()
        self._busy = threading.local()
        self._active = True
        if runtime.config.logs.capture:
            logging.setLogRecordFactory(self.make_record)
        if runtime.config.logs.warnings:
            warnings.showwarning = self.show_warning

    def close(self) -> None:
        """Restore ``logging`` and ``warnings``. What somebody else has replaced since stays, and ours has no effect."""
        self._active = False
        if logging.getLogRecordFactory() == self.make_record:
            logging.setLogRecordFactory(self._make_record)
        if warnings.showwarning == self.show_warning:
            warnings.showwarning = self._show_warning

    def make_record(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Create a log record as without Nissa, and record it."""
        record: logging.LogRecord = self._make_record(*args, **kwargs)
        if self._wants(record):
            self._guarded("log capture", self._record, record)
        return record

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Record a warning of torch, and show it as without Nissa."""
        if is_of_torch(filename):
            self.record_warning(message, category, filename, lineno)
        self._show_warning(message, category, filename, lineno, file, line)

    def record_warning(self, message: Warning | str, category: type[Warning], filename: str, lineno: int) -> None:
        """Record a warning of torch, if it is wanted."""
        if self._active and self._pid == os.getpid() and self._runtime.config.logs.warnings:
            self._guarded("warnings of torch", self._warning, message, category, filename, lineno)

    def _wants(self, record: logging.LogRecord) -> bool:
        name: Any = record.name
        return (
            self._active
            and isinstance(name, str)  # logging.makeLogRecord creates an empty record first
            and record.levelno >= self._level
            and self._pid == os.getpid()
            and not any(name == own or name.startswith(f"{own}.") for own in _OWN)
            and not threading.current_thread().name.startswith(_OWN_THREADS)
        )

    def _guarded(self, where: str, function: Any, *args: Any) -> None:
        """Call a function once at a time per thread: what it formats may log or warn as well."""
        if getattr(self._busy, "busy", False):
            return
        self._busy.busy = True
        try:
            with self._runtime.stopwatch.own, self._runtime.error_boundary.guard(where):
                function(*args)
        finally:
            self._busy.busy = False

    def _record(self, record: logging.LogRecord) -> None:
        self._send(
            EventType.LOG_RECORDED,
            message=_message(record),
            severity=_severity(record.levelno),
            data={
                "logger": record.name,
                "file": record.pathname,
                "line": record.lineno,
                "function": record.funcName,
                "thread": record.threadName,
                **_exception(record),
            },
        )

    def _warning(self, message: Warning | str, category: type[Warning], filename: str, lineno: int) -> None:
        text = str(message)
        identity = (category.__name__, filename, lineno, text)
        if identity in self._seen:
            return
        if len(self._seen) >= _MOST_WARNINGS:
            self._runtime.hub.count_rejection("warning_limit")
            return
        self._seen.add(identity)
        data = {"category": category.__name__, "file": filename, "line": lineno}
        self._send(EventType.TORCH_WARNING, message=text, severity=Severity.WARNING, data=data)

    def _send(self, event_type: EventType, *, data: dict[str, Any], **fields: Any) -> None:
        env_id, epoch, ids = self._place()
        if ids is not None:
            data |= {"trace_id": ids.trace_hex, "span_id": f"{ids.span_id:016x}"}
        self._runtime.send(event_type, env_id=env_id, epoch=epoch, data=data, **fields)

    def _place(self) -> "tuple[str | None, int | None, SpanIds | None]":
        """Return environment, epoch and span of the epoch that this thread has begun; without one, the only open epoch."""
        opened = list(self._runtime.open_epochs.items())
        here = threading.get_ident()
        mine = [each for each in opened if self._runtime.epoch_threads.get(each[0]) == here]
        found = mine[-1:] or (opened if len(opened) == 1 else [])
        if not found:
            return None, None, None
        env_id, (number, ids) = found[0]
        return env_id, number, ids


def is_of_torch(filename: str) -> bool:
    """Return whether a warning was issued by torch, even if it points to the code that called torch.

    Only ``warnings.showwarning`` can call this function.
    """
    if filename.startswith(_TORCH):
        return True
    # This function's caller is called by `warnings._showwarnmsg`, and that one on behalf of who warns.
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to the stack
    while frame.f_back is not None and frame.f_globals.get("__name__") == "warnings":
        frame = frame.f_back
    name = str(frame.f_globals.get("__name__"))
    return name == "torch" or name.startswith("torch.")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - an argument that does not fit the message; logging reports it itself
        return str(record.msg)


def _severity(level: int) -> Severity:
    severities = {logging.CRITICAL: Severity.CRITICAL, logging.ERROR: Severity.ERROR}
    severities |= {logging.WARNING: Severity.WARNING, logging.INFO: Severity.INFO}
    return next((severity for least, severity in severities.items() if level >= least), Severity.DEBUG)


def _exception(record: logging.LogRecord) -> dict[str, str]:
    kind, error, trace = record.exc_info or (None, None, None)
    if kind is None:
        return {}
    return {
        "exception_type": kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}",
        "exception_message": str(error),
        "stacktrace": "".join(traceback.format_exception(kind, error, trace)),
    }
