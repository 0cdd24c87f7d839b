"""Global OpenTelemetry providers, and who has built them.

Only those that the application's own code has built are used as they are, and delivery is then up to their exporters. A
distro (``opentelemetry-instrument``) and an earlier run of the process build theirs from ``OTEL_*`` variables, which a run
follows by itself, with its own identity and a journal.
"""

import weakref
from typing import Any, Final, NamedTuple

from opentelemetry import _logs, metrics, trace

_PLACEHOLDERS: Final = ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
_set_aside: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def is_real(provider: object) -> bool:
    """Whether a provider has an implementation; the API package itself contains only proxies and no-ops."""
    kind = type(provider)
    gets = ("get_tracer", "get_meter", "get_logger")
    return any(hasattr(kind, name) for name in gets) and not kind.__module__.startswith(_PLACEHOLDERS)


class GlobalProviders(NamedTuple):
    """Providers of the three signals, no-ops included."""

    tracer: Any
    meter: Any
    logger: Any

    @classmethod
    def present(cls) -> "GlobalProviders":
        """Return the global providers; one that a variable selects is loaded."""
        return cls(trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())

    @property
    def any_set(self) -> bool:
        """Whether any of them has an implementation."""
        return any(map(is_real, self))

    @property
    def of_application(self) -> bool:
        """Whether the application has built any of them."""
        return any(is_real(each) and each not in _set_aside for each in self)

    def set_aside(self) -> None:
        """Regard those that have an implementation as built by a distro or by a run."""
        _set_aside.update(filter(is_real, self))
