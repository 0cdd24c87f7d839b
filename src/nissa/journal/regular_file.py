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
        OSError: It cannot be opened, is a symbolic link, or is not a regular file; the message states the fix.
    """
    try:
        # Truncate only after the check: a device must stay as it is.
        descriptor = os.open(path, (flags & ~os.O_TRUNC) | _FLAGS, 0o644)
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


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger than `MOST_BYTES`.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, "it is too large")
        return file.readall()
