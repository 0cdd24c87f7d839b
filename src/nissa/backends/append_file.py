"""Append-only file of whole lines that stays readable if the process is killed."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from nissa.journal.regular_file import open_regular

_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class LineFile:
    """Unbuffered text stream: each write is passed to the operating system at once.

    A buffered stream would leave half a line in the file if the process is killed between two flushes.

    Args:
        path: The file, created if it is missing.
        follow: Accept whatever the path leads to. By default it must be a regular file and no symbolic link: somebody
            else who can write to the folder of a run must not redirect its telemetry into another file.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, follow: bool = False) -> None:
        self.path = path
        self.closed = False
        self._descriptor = os.open(path, _APPEND, 0o644) if follow else open_regular(path, _APPEND)

    def write(self, text: str) -> int:
        """Append text and return its length in characters.

        Raises:
            OSError: It could not be written, for example because the disk is full; nothing of it remains.
        """
        data = text.encode()
        start, written = os.fstat(self._descriptor).st_size, 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:] if written else data)
        except OSError:
            self._remove_part(start, written)
            raise
        return len(text)

    def _remove_part(self, start: int, written: int) -> None:
        """Remove the part of a text that could be written, unless another process has appended meanwhile."""
        if written and os.fstat(self._descriptor).st_size == start + written:  # 0 for a pipe or terminal
            with suppress(OSError):
                os.ftruncate(self._descriptor, start)

    def flush(self) -> None:
        """Do nothing: writes are unbuffered."""

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)
