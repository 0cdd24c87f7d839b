"""Append-only file of whole lines that stays readable if the process is killed."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND
# Opening a FIFO would otherwise wait for a reader. Regular files ignore the flag; Windows has none of the two.
_OWN: Final = _APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


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
        self._descriptor = os.open(path, _APPEND, 0o644) if follow else _opened(path)

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


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, _OWN, 0o644)
    except OSError as error:
        if path.is_symlink():
            raise OSError(error.errno, f"{path.name} is a symbolic link, which is not followed; remove it") from None
        if error.errno == errno.ENXIO:  # a FIFO without a reader
            raise OSError(error.errno, f"{path.name} is not a regular file; remove it") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file; remove it")
    return descriptor
