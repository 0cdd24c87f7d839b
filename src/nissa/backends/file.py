"""JSON Lines backend: each event is passed to the operating system at once, together with those queued behind it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import to_json

from nissa.backends.append_file import LineFile
from nissa.errors import ConfigurationError
from nissa.events import json_number

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from nissa.events import TelemetryEvent


class FileBackend:
    """Appends events to a file, one JSON object per line; NaN and infinity are written as text.

    Args:
        path: The file; missing parent folders are created.
        follow: Accept whatever the path leads to, such as ``/dev/stdout``; otherwise it must be a regular file.

    Raises:
        ConfigurationError: The file cannot be written.
    """

    name = "file"

    def __init__(self, path: "str | os.PathLike[str]", *, follow: bool = True) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = LineFile(self.path, follow=follow)
        except OSError as error:
            raise ConfigurationError(f"Cannot write events to {path}: {error.strerror}.") from error
        except ValueError as error:  # NUL or invalid Unicode
            raise ConfigurationError(f"Cannot write events to {str(path)!r}: {error}.") from error

    def emit(self, event: "TelemetryEvent") -> None:
        """Append an event."""
        self._file.write(_line(event).decode())

    def emit_batch(self, events: "Sequence[TelemetryEvent]") -> None:
        """Append events with a single write, of which nothing remains if it fails."""
        self._file.write(b"".join(map(_line, events)).decode())

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nothing is held back, so nothing takes time
        """Close the file."""
        self._file.close()


def _line(event: "TelemetryEvent") -> bytes:
    plain = event.to_dict()
    try:
        # pydantic_core takes a quarter of the time of the json module.
        line = to_json(plain, inf_nan_mode="strings", fallback=str)
        if line.isascii():
            return line + b"\n"
    except (TypeError, ValueError):  # an event that has not passed a hub: a lone surrogate, or a key that is no text
        pass
    # The json module escapes other characters than ASCII: some programs take U+2028 for the end of a line.
    return json.dumps(_strict_json(plain), separators=(",", ":"), allow_nan=False, default=str).encode() + b"\n"


def _strict_json(value: object) -> object:
    """Return nested data with string keys, lists for tuples, and text for NaN and infinities."""
    if isinstance(value, dict):
        return {str(key): _strict_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict_json(entry) for entry in value]
    return json_number(value) if isinstance(value, float) else value
