"""Append-only file in which each record is whole or absent, on a full disk and in a removed folder too."""

import os
from pathlib import Path
from typing import Final

from nissa.errors import JournalError
from nissa.journal.regular_file import open_regular

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND


class AppendFile:
    """Unbuffered file of records; a record that does not fit is removed again at once.

    A buffered stream would leave half a record if the process is killed between two flushes.

    Args:
        path: The file; it and its folder are created if they do not exist.
        fsync: Whether each record is also forced to the disk, for the death of the machine.

    Attributes:
        size: Bytes of the whole records.

    Raises:
        JournalError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = open_regular(path, _FLAGS)
        except OSError as error:
            raise JournalError(message(path, error)) from error
        found = os.fstat(self._descriptor)
        self._identity = found.st_dev, found.st_ino
        self.size = found.st_size

    def append(self, *parts: bytes) -> int:
        """Append a record that consists of parts, and return its offset.

        Raises:
            JournalError: The record could not be written whole, or the file was removed. Nothing of it remains, unless
                `broken` is True.
        """
        found = self._found()
        if found is None:
            raise JournalError(f"{self.path} was removed while it was in use. It will be created again.")
        self.size = found.st_size  # differs where another process appends too, which locks exclude if there are any
        try:
            self._write(parts)
            if self._fsync:
                os.fsync(self._descriptor)
        except OSError as error:
            self._truncate()
            raise JournalError(message(self.path, error)) from error
        offset, self.size = self.size, self.size + sum(map(len, parts))
        return offset

    @property
    def removed(self) -> bool:
        """Whether the file is no longer at its path: what is written to it would be freed with the process."""
        return self._found() is None

    @property
    def broken(self) -> bool:
        """Whether a part of a record that failed could not be removed; continue in a new file then."""
        return self._descriptor < 0

    def read(self, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes from an offset."""
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        """Close the file; calling it again has no effect."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _found(self) -> os.stat_result | None:
        """Return the state of the file; None if it is no longer at its path."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - a Path would cost as much again, for each record
        except OSError:
            return None
        return found if (found.st_dev, found.st_ino) == self._identity else None

    def _write(self, parts: tuple[bytes, ...]) -> None:
        """Write all parts. A short write is continued, because only the next attempt states its cause."""
        total = sum(map(len, parts))
        written = os.writev(self._descriptor, parts)
        if written < total:
            rest = memoryview(b"".join(parts))[written:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def _truncate(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:
            self.close()


def message(path: Path, error: OSError) -> str:
    """Return the text of a `JournalError`: file, cause and fix."""
    return (
        f"Cannot write telemetry to {path}: {error.strerror or error}. Free space, correct its permissions, or choose "
        "another folder with NISSA_FILES__DIRECTORY or files.directory."
    )
