"""JSON Lines backend: each event is passed to the operating system at once, together with those queued behind it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nissa.backends.append_file import LineFile
from nissa.errors import ConfigurationError
from nissa.events import json_number

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from nissa.events import TelemetryEvent


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False, default=str)


class FileBackend:
    """Appends events to a file, one JSON object per line; NaN and infinity are written as text.

    Args:
        path: The file; missing parent folders are created.

    Raises:
        ConfigurationError: The file cannot be written.
    """

    name = "file"

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = LineFile(self.path, follow=True)  # the caller chose the path, which may be /dev/stdout
        except OSError as error:
            raise ConfigurationError(f"Cannot write events to {path}: {error.strerror}.") from error
        except ValueError as error:  # NUL or invalid Unicode
            raise ConfigurationError(f"Cannot write events to {str(path)!r}: {error}.") from error

    def emit(self, event: "TelemetryEvent") -> None:
        """Append an event."""
        self._file.write(_line(event))

    def emit_batch(self, events: "Sequence[TelemetryEvent]") -> None:
        """Append events with a single write, of which nothing remains if it fails."""
        self._file.write("".join(map(_line, events)))

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nothing is held back, so nothing takes time
        """Close the file."""
        self._file.close()


def _line(event: "TelemetryEvent") -> str:
    plain = event.to_dict()
    try:
        return _ENCODER.encode(plain) + "\n"
    except (TypeError, ValueError):  # NaN, infinity, or a key that is neither text nor a number
        return _ENCODER.encode(_strict_json(plain)) + "\n"


def _strict_json(value: object) -> object:
    """Return nested data with string keys, lists for tuples, and text for NaN and infinities."""
    if isinstance(value, dict):
        return {str(key): _strict_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict_json(entry) for entry in value]
    return json_number(value) if isinstance(value, float) else value
