"""Closing line of a run that no code of the script has started: what could not be observed, and the line that adds it."""

from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING

from nissa.backends.terminal import Console, Text

if TYPE_CHECKING:
    from nissa.events import TelemetryEvent


class UnobservedSummary:
    """Backend that prints one line when the run ends.

    Args:
        missing: Returns pairs of a thing and the line of code that adds it.
        stream: Output stream; None is standard error.
    """

    name = "unobserved"

    def __init__(self, missing: Callable[[], Iterable[tuple[str, str]]], stream: IO[str] | None = None) -> None:
        self._missing = missing
        self._stream = stream

    def emit(self, event: "TelemetryEvent") -> None:
        """Ignore the event."""

    def close(self, _timeout: float) -> None:
        """Print the line; nothing where everything was observed."""
        line = closing_line(self._missing())
        if line is not None:
            Console(file=self._stream, stderr=True, highlight=False, soft_wrap=True).print(Text(line))


def closing_line(missing: Iterable[tuple[str, str]]) -> str | None:
    """Return the line; None if nothing is missing.

    Example:
        >>> closing_line([("epochs", "with run.epoch(number):")])
        'nissa: not observed: epochs (with run.epoch(number):); add these lines after run = nissa.start()'
    """
    parts = [f"{what} ({line})" for what, line in missing]
    return f"nissa: not observed: {', '.join(parts)}; add these lines after run = nissa.start()" if parts else None
