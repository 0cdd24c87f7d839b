"""Instrumentor for ``opentelemetry-instrument``; it needs the extra ``instruments``."""

from collections.abc import Collection
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from nissa.integrations.callers import called_from
from nissa.integrations.zero_code import instrument, uninstrument
from nissa.otel.global_providers import GlobalProviders

_LOADER: Final = "opentelemetry.instrumentation.auto_instrumentation"
"""Package that runs before the script; the providers of that moment are those of a distro."""


class NissaInstrumentor(BaseInstrumentor):
    """Observes the optimizers of a process, as ``nissa run`` does. It imports no torch: the script does, or never.

    Example:
        ``opentelemetry-instrument python train.py``, or ``NissaInstrumentor().instrument()`` at the top of a script.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the versions of torch that can be observed."""
        return ("torch >= 2.8",)

    def _instrument(self, **_: Any) -> None:
        if called_from(_LOADER):
            GlobalProviders.present().set_aside()
        instrument()

    def _uninstrument(self, **_: Any) -> None:
        uninstrument()
