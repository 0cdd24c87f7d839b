"""Append-only file of whole lines that stays readable if the process is killed."""

import os
from pathlib import Path


class LineFile:
    """Unbuffered text stream: each write is passed to the operating system at once.

    A buffered stream would leave half a line in the file if the process is killed between two flushes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, text: str) -> int:
        """Append text and return its length in characters."""
        rest = memoryview(text.encode())
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return len(text)

    def flush(self) -> None:
        """Do nothing: writes are unbuffered."""

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)
