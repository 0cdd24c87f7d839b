"""What a backend is: anything with ``emit``.

Three more methods are called where a backend has them:

- ``record(measurement)``: per-step numbers (`nissa.hub.measurements`), for backends that want more than events;
- ``flush(timeout) -> bool``: hand on what is buffered, at most so many seconds;
- ``close(timeout)``: the last call.

All of them run on the backend's own thread, one at a time, so a backend needs no lock; a ``close`` that a stuck backend
never reaches is skipped. An exception in any of them is contained and counted, and other backends do not notice.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent


@runtime_checkable
class Backend(Protocol):
    """Receives every event that passes the hub, in order."""

    def emit(self, event: "TelemetryEvent") -> None:
        """Take one event; the event is frozen and shared with other backends."""
