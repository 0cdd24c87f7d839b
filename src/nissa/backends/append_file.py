"""Append-only file of whole lines that stays readable if the process is killed."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_WRITE: Final = os.O_WRONLY | os.O_CREAT
# Opening a FIFO would otherwise wait for a reader. Regular files ignore the flag; Windows has none of the two.
_OWN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


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
        self._descriptor = os.open(path, _WRITE | os.O_APPEND, 0o644) if follow else open_regular(path, os.O_APPEND)

    def write(self, text: str) -> int:
        """Append text and return its length in characters.

        Raises:
            OSError: It could not be written, for example because the disk is full; nothing of it remains.
        """
        data = memoryview(text.encode())
        start, written = os.fstat(self._descriptor).st_size, 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
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


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file for writing, created if it is missing, and return its descriptor.

    Args:
        path: The file.
        flags: ``os.O_APPEND`` or ``os.O_TRUNC``.

    Raises:
        OSError: It cannot be opened, is a symbolic link, or is not a regular file.
    """
    # Truncate only after the check: a device must stay as it is.
    try:
        descriptor = os.open(path, _WRITE | _OWN | (flags & ~os.O_TRUNC), 0o644)
    except OSError as error:
        if path.is_symlink():
            raise OSError(error.errno, f"{path.name} is a symbolic link, which is not followed; remove it") from None
        if error.errno == errno.ENXIO:  # a FIFO without a reader
            raise OSError(error.errno, f"{path.name} is not a regular file; remove it") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file; remove it")
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor
