"""In-memory backend for tests and notebooks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.events import TelemetryEvent
    from nissa.hub.measurements import Measurement


class MemoryBackend:
    """Stores events and measurements in lists.

    Attributes:
        events: Every event, in order.
        measurements: Every measurement, in order.
    """

    name = "memory"

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []
        self.measurements: list[Measurement] = []

    def emit(self, event: "TelemetryEvent") -> None:
        """Store an event."""
        self.events.append(event)

    def emit_batch(self, events: "Sequence[TelemetryEvent]") -> None:
        """Store events."""
        self.events.extend(events)

    def record(self, measurement: "Measurement") -> None:
        """Store a measurement."""
        self.measurements.append(measurement)

    def of_type(self, event_type: str) -> "list[TelemetryEvent]":
        """Return the events of one type."""
        return [event for event in self.events if event.event_type == event_type]
