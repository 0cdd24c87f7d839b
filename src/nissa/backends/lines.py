"""Files of whole lines, which a process that is killed leaves readable."""

import os
from pathlib import Path


class LineFile:
    """A text stream that hands each write to the operating system whole.

    A buffered stream would leave half a line behind when the process is killed between two flushes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, text: str) -> int:
        """Append text."""
        rest = memoryview(text.encode())
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)
