"""Opening of files in a folder that others may write to: no symbolic link is followed, and no FIFO is waited for."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 1 << 30
"""Size above which a file is not read into memory: no segment is that large."""

_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file, and return its descriptor.

    Raises:
        OSError: It cannot be opened, is a symbolic link, or is not a regular file.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o644)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise OSError(error.errno, "it is a symbolic link or not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return descriptor


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger than `MOST_BYTES`.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, "it is too large")
        return file.readall()
