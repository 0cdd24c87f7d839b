"""Log records of the process: OTLP records without an event name, in the scope of their logger."""

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.semconv.attributes import code_attributes as code
from opentelemetry.semconv.attributes import exception_attributes as exception

from nissa.otel.logs import EventLog
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from nissa.events import TelemetryEvent

_MOST_LOGGERS: Final = 500
"""Maximum number of loggers with a scope of their own; the SDK keeps each scope."""

_FURTHER: Final = "other"

_THREAD_NAME: Final = "thread.name"

_ATTRIBUTES: Final = {
    code.CODE_FILE_PATH: "file",
    code.CODE_LINE_NUMBER: "line",
    code.CODE_FUNCTION_NAME: "function",
    exception.EXCEPTION_TYPE: "exception_type",
    exception.EXCEPTION_MESSAGE: "exception_message",
    exception.EXCEPTION_STACKTRACE: "stacktrace",
    _THREAD_NAME: "thread",
}
"""Attributes of upstream's semantic conventions by their names in the data of an event."""


class ProcessLog:
    """Emits the log records of the process.

    Args:
        provider: OpenTelemetry logger provider.
        common: Attributes of every record.
    """

    def __init__(self, provider: Any, common: dict[str, Any]) -> None:
        self._provider = provider
        self._common = common
        self._logs: dict[str, EventLog] = {}

    def emit(self, event: "TelemetryEvent", span: "SpanContext | None") -> None:
        """Emit one record.

        Args:
            event: Event of the type LOG_RECORDED.
            span: Span of the epoch in which it was logged, or of the run.
        """
        found = {name: event.data.get(key) for name, key in _ATTRIBUTES.items()}
        attributes = {**self._common, attr.ENV_ID: event.env_id, attr.EPOCH: event.epoch, **found}
        log = self._log(str(event.data.get("logger")))
        log.emit(None, event.time_unix_nano, attributes, span=span, severity=event.severity, body=event.message)

    def _log(self, name: str) -> EventLog:
        if name not in self._logs and len(self._logs) >= _MOST_LOGGERS:
            name = _FURTHER
        if name not in self._logs:
            self._logs[name] = EventLog(self._provider.get_logger(name))
        return self._logs[name]
