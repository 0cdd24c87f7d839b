"""Log-based Events. The logs API of the SDK is unstable; only this module calls it."""

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry._logs import SeverityNumber
from opentelemetry.trace import SpanContext

from nissa.events import Severity
from nissa.otel.traces.spans import present, within

_SEVERITIES: Final = {
    Severity.DEBUG: SeverityNumber.DEBUG,
    Severity.INFO: SeverityNumber.INFO,
    Severity.WARNING: SeverityNumber.WARN,
    Severity.ERROR: SeverityNumber.ERROR,
    Severity.CRITICAL: SeverityNumber.FATAL,
}


class EventLog:
    """Emits log-based Events through an OpenTelemetry logger."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def emit(
        self,
        name: str | None,
        at: int,
        attributes: Mapping[str, Any],
        *,
        span: SpanContext | None = None,
        severity: Severity = Severity.INFO,
        body: str | None = None,
    ) -> None:
        """Emit one Event.

        Args:
            name: Event name; None for a log record that is no Event.
            at: Nanoseconds since the Unix epoch.
            attributes: Attributes; those that are None are left out.
            span: Span to associate the Event with, None for none.
            severity: Severity of the log record.
            body: Message text.
        """
        number = _SEVERITIES[severity]
        self._logger.emit(
            timestamp=at,
            observed_timestamp=at,
            context=within(span),
            severity_number=number,
            severity_text=number.name,
            body=body,
            attributes=present(attributes),
            event_name=name,
        )
