"""Positions up to which frames were delivered, in one small file that is written in place.

A write of a few bytes within a block is never torn by the death of the process, and needs no space on a full disk. After
the death of the machine a slot may be damaged, which its checksum shows: delivery then starts again at the oldest frame.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from nissa.errors import JournalError
from nissa.journal.append_file import message
from nissa.journal.regular_file import open_regular

_SLOT: Final = struct.Struct("<IQQQ4x")
"""Checksum, segment, offset, items; 32 bytes."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Place of the next frame to deliver.

    Args:
        segment: Number of its segment; 0 before the first one.
        offset: First byte of the frame in the segment.
        items: Number of items before it in the segment.
    """

    segment: int = 0
    offset: int = 0
    items: int = 0


class CursorFile:
    """File with one slot per lane.

    Args:
        path: The file; it is created if it does not exist.
        slots: Number of slots.

    Raises:
        JournalError: The file cannot be opened or written.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self.path = path
        try:
            self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
            missing = slots * _SLOT.size - os.fstat(self._descriptor).st_size
            if missing > 0:  # written, not only extended: the blocks must exist when the disk is full
                os.pwrite(self._descriptor, bytes(missing), slots * _SLOT.size - missing)
        except OSError as error:
            raise JournalError(message(path, error)) from error

    def read(self, slot: int) -> Cursor:
        """Return a cursor; the beginning if it was never written or is damaged."""
        data = os.pread(self._descriptor, _SLOT.size, slot * _SLOT.size)
        if len(data) < _SLOT.size:
            return Cursor()
        crc, *fields = _SLOT.unpack(data)
        return Cursor(*fields) if crc32(data[4:]) == crc else Cursor()

    def write(self, slot: int, cursor: Cursor) -> bool:
        """Write a cursor; return False if that failed, and frames may therefore be delivered again after a restart."""
        checked = _SLOT.pack(0, cursor.segment, cursor.offset, cursor.items)[4:]
        try:
            os.pwrite(self._descriptor, struct.pack("<I", crc32(checked)) + checked, slot * _SLOT.size)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file; calling it again has no effect."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
