"""JSON Lines backend: each event is written to the file before the next one is processed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nissa.backends.append_file import LineFile
from nissa.errors import ConfigurationError
from nissa.events import json_number

if TYPE_CHECKING:
    import os

    from nissa.events import TelemetryEvent


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
        line = json.dumps(_strict_json(event.to_dict()), separators=(",", ":"), allow_nan=False, default=str)
        self._file.write(line + "\n")

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nothing is held back, so nothing takes time
        """Close the file."""
        self._file.close()


def _strict_json(value: object) -> object:
    """Return nested data with string keys, lists for tuples, and text for NaN and infinities."""
    if isinstance(value, dict):
        return {str(key): _strict_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict_json(entry) for entry in value]
    return json_number(value) if isinstance(value, float) else value
