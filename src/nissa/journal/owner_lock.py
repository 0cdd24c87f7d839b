"""Lock of a folder that ends with its process, however that ends."""

import json
import os
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import Final

from nissa.errors import JournalError
from nissa.journal.append_file import message
from nissa.journal.regular_file import open_regular

if sys.platform != "win32":  # where a folder is therefore never taken over
    import fcntl

_LOCK_FILES: Final = (".owner*.lock", "spool*/owner.lock")
"""Lock files in the folder of a run: of its files, and of its spools."""

_held: Final[set[int]] = set()
"""Descriptors of the locks that this process holds."""


class OwnerLock:
    """Lock on a file; held until `release` or the end of the process.

    Args:
        path: The lock file. It contains process id, user id and host of the owner, for people.
        descriptor: The open lock file.
        works: Whether the file system has locks. Without them it is unknown whether an owner lives.
    """

    def __init__(self, path: Path, descriptor: int, *, works: bool) -> None:
        self.path = path
        self.works = works
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._identity = found.st_dev, found.st_ino
        _held.add(descriptor)

    @classmethod
    def acquire(cls, path: Path, *, create: bool = True) -> "OwnerLock | None":
        """Lock a file; return None if a living process holds the lock.

        Args:
            path: The file.
            create: Whether it is created if it does not exist. Otherwise the return value is None then.

        Raises:
            JournalError: The file cannot be opened or written.
        """
        try:
            while True:
                lock = cls._open(path, os.O_CREAT if create else 0)
                if lock is None or not lock.removed:
                    break
                lock.release()  # its owner removed it between our opening and locking it
            if lock is not None:
                lock.sign()
        except FileNotFoundError as error:
            if create:
                raise JournalError(message(path, error)) from error
            return None
        except OSError as error:
            raise JournalError(message(path, error)) from error
        return lock

    @classmethod
    def _open(cls, path: Path, flags: int) -> "OwnerLock | None":
        descriptor = open_regular(path, os.O_RDWR | flags)
        try:
            works = _lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(path, descriptor, works=works)

    @property
    def removed(self) -> bool:
        """Whether the lock file is no longer at its path, so that another process could lock a new one."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - called for each record
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def release(self) -> None:
        """Release the lock; calling it again has no effect."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)

    def sign(self) -> None:
        """Write the owner into the file."""
        owner = {
            "pid": os.getpid(),
            "uid": os.getuid() if hasattr(os, "getuid") else None,
            "host": socket.gethostname(),
        }
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(owner).encode() + b"\n", 0)


def owner_of(path: Path) -> str:
    """Return the owner that a lock file names, such as ``process 4711 on gpu-3``, for messages."""
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


class OwnerState(StrEnum):
    """Whether the process lives that a lock file names."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """The file is from another machine, or its file system has no locks."""


def state_of_owner(path: Path) -> OwnerState:
    """Return whether the owner of a lock file lives; a process that ends its run removes the file.

    The file is locked for an instant, which another process may take for a living owner.
    """
    try:
        host = json.loads(path.read_text())["host"]
        descriptor = open_regular(path, os.O_RDONLY)
    except (OSError, ValueError, KeyError, TypeError):
        return OwnerState.UNKNOWN
    try:
        if host != socket.gethostname():  # a copy of the folder, or a file system that machines share
            return OwnerState.UNKNOWN
        return OwnerState.DEAD if _lock(descriptor, shared=True) else OwnerState.UNKNOWN
    except BlockingIOError:
        return OwnerState.ALIVE
    finally:
        os.close(descriptor)


def states_of_owners(folder: Path) -> tuple[OwnerState, ...]:
    """Return a state for each process that has begun to write to the folder of a run, and has not ended its run."""
    found = [path for pattern in _LOCK_FILES for path in sorted(folder.glob(pattern))]
    return tuple(state_of_owner(path) for path in found)


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock a file; return False if its file system has no locks.

    Raises:
        BlockingIOError: Another process, or another `OwnerLock` of this one, holds the lock.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _close_in_child() -> None:
    """Close the locks of the parent process: a lock is held as long as any process has it open.

    Otherwise a worker process of a data loader would keep the folder locked after the death of its parent.
    """
    for descriptor in [*_held]:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
