"""Backend that calls a function of the user for each finding; see `Run.on_finding`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from nissa.diagnostics.finding import Finding

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent


class FindingCallback:
    """Calls a function with each finding, on the thread that the hub gives to each backend.

    Args:
        name: Name of the backend.
        callback: Function to call.
        cleared: Whether to call it for the end of a trouble as well.
    """

    receives = (Finding,)

    def __init__(self, name: str, callback: Callable[[Finding], object], *, cleared: bool) -> None:
        self.name = name
        self._callback = callback
        self._cleared = cleared

    def emit(self, event: "TelemetryEvent") -> None:
        """Ignore events: findings arrive as measurements do."""

    def record(self, finding: Finding) -> None:
        """Call the function; the hub logs its first exception and counts all."""
        if finding.raised or self._cleared:
            self._callback(finding)
