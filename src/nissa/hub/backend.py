"""Backend protocol: any object with a method ``emit`` is a backend.

Four more methods and two attributes are optional:

- ``record(measurement)``: receives per-step measurements (`nissa.hub.measurements`) in addition to events. An attribute
  ``receives``, a tuple of types, limits it to these, so that a backend's thread is not woken at each step;
- ``emit_batch(events)``: receives the events that are queued, at most 1,000, instead of a call of ``emit`` for each. If it
  raises, it must have processed none of them: each is then passed to ``emit``. A subclass that overrides only ``emit``
  receives no batches;
- ``flush(timeout) -> bool``: exports buffered data within ``timeout`` seconds;
- ``close(timeout)``: the last call;
- ``healthy``: whether nothing was lost behind the backend, for `NissaHub.healthy`. It is read from any thread.

The methods run on the backend's own thread, one at a time, so a backend needs no lock. ``close`` is not called if the
backend hangs. An error boundary catches and counts the exceptions of a backend, so they do not affect other backends.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent


@runtime_checkable
class Backend(Protocol):
    """Receiver of all events that pass through the hub, in order."""

    def emit(self, event: "TelemetryEvent") -> None:
        """Process one event; the event is frozen and shared with other backends."""
