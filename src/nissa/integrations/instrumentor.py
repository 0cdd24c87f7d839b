"""Instrumentor for ``opentelemetry-instrument``; it needs the extra ``instruments``."""

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from nissa.integrations.zero_code import instrument, uninstrument


class NissaInstrumentor(BaseInstrumentor):
    """Observes the optimizers of a process, as ``nissa run`` does. It imports no torch: the script does, or never.

    Example:
        ``opentelemetry-instrument python train.py``, or ``NissaInstrumentor().instrument()`` at the top of a script.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the versions of torch that can be observed."""
        return ("torch >= 2.8",)

    def _instrument(self, **_: Any) -> None:
        instrument()

    def _uninstrument(self, **_: Any) -> None:
        uninstrument()
