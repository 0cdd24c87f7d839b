"""Lifecycle events that a backend had not received when its run ended, written to a file of the run.

A backend that is slower than the events, or that hangs, cannot get them all within the time that the end of a run may take.
What is left then is neither lost nor waited for.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nissa.backends.file import FileBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.events import TelemetryEvent

_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9._-]")
_MOST_NAME: Final = 80
"""Characters of a backend's name in the name of its file; file systems allow 255 bytes."""


def undelivered_path(folder: Path, suffix: str, backend: str) -> Path:
    """Return the file for the events that a backend has not received.

    Args:
        folder: Folder of the run.
        suffix: Suffix of the files of this rank.
        backend: Name of the backend.
    """
    return folder / f"undelivered-{_UNUSUAL.sub('_', backend)[:_MOST_NAME]}{suffix}.jsonl"


def save(events: "Sequence[TelemetryEvent]", path: Path) -> None:
    """Append events to a file in the format of `FileBackend`.

    Raises:
        ConfigurationError: The file cannot be created.
        OSError: The events cannot be written.
    """
    file = FileBackend(path, follow=False)
    try:
        file.emit_batch(events)
    finally:
        file.close(0.0)
