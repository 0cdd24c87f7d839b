"""JSON lines of one signal in files of bounded size: one that is appended to, and closed ones that are compressed.

::

    metrics.000001.jsonl.gz     closed and compressed
    metrics.000002.jsonl        closed, not yet compressed
    metrics.jsonl               appended to
"""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nissa.errors import JournalError
from nissa.journal.append_file import AppendFile, message
from nissa.journal.compression import Compressor, compressed

SUFFIX: Final = ".jsonl"
COMPRESSED_SUFFIX: Final = f"{SUFFIX}.gz"
_DIGITS: Final = 6
_FILES_IN_ROOM: Final = 4
_SMALLEST: Final = 1 << 12
"""Size below which files are not closed early."""


@dataclass(slots=True)
class ClosedFile:
    """File that is no longer appended to.

    Args:
        number: Its number, ascending from 1.
        path: Its path before compression.
        items: Number of items; None if another process wrote it.
        size: Bytes on disk when they were measured last.
        settled: Whether it is compressed, so that its size no longer changes.
    """

    number: int
    path: Path
    items: int | None = None

    size: int = 0
    settled: bool = False

    def measure(self) -> int:
        """Return the bytes on disk; 0 if it was removed."""
        if not self.settled:
            packed = compressed(self.path)
            self.settled = packed.exists()
            self.size = _size(packed if self.settled else self.path)
        return self.size

    @property
    def removed(self) -> bool:
        """Whether neither the file nor its compressed version exists."""
        return not (self.path.exists() or compressed(self.path).exists())

    def remove(self) -> int:
        """Remove it, and return the number of its items, for a foreign file that of its lines."""
        items = _lines(self.path) if self.items is None else self.items
        for path in (self.path, compressed(self.path)):
            path.unlink(missing_ok=True)
        return items


def line_files(folder: Path, prefix: str = "") -> list[Path]:
    """Return the files of JSON lines in a folder whose names begin with a prefix, closed ones before the open one.

    A file whose compressed version exists already is left out.
    """
    found = {path.name: path for path in folder.glob(f"{prefix}*") if path.name.endswith((SUFFIX, COMPRESSED_SUFFIX))}
    return [found[name] for name in sorted(found) if compressed(found[name]).name not in found]


class RotatingFile:
    """Files of one signal of one process.

    Args:
        folder: Their folder; it is created if it does not exist.
        stem: Name without number and suffix, such as ``metrics-rank0``.
        segment_bytes: Size at which a file is closed.
        fsync: Whether each write is forced to the disk.
        compressor: Compresses closed files.

    Attributes:
        closed: Closed files, oldest first.

    Raises:
        JournalError: The open file cannot be opened.
    """

    def __init__(self, folder: Path, stem: str, *, segment_bytes: int, fsync: bool, compressor: Compressor) -> None:
        self._folder = folder
        self._stem = stem
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._compressor = compressor
        self._items = 0
        self.closed = self._list_closed()
        self._unsettled = [*self.closed]
        self._closed_bytes = 0
        self._ratio = 1.0
        for closed in self.closed:
            self._compress(closed.path)
        self._file, self._torn = self._opened()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        for closed in [*self._unsettled]:
            before = closed.size
            self._closed_bytes += closed.measure() - before
            if closed.settled:
                self._unsettled.remove(closed)
                self._ratio = closed.size / before if before else self._ratio
        return self._file.size + self._closed_bytes

    @property
    def expected_bytes(self) -> float:
        """Bytes of all files once they are compressed, as far as the last compression shows."""
        raw = self._file.size + sum(closed.size for closed in self._unsettled)
        return self.size_bytes - raw * (1 - self._ratio)

    @property
    def removed_items(self) -> int:
        """Number of items that this process wrote and that were removed by others."""
        closed = sum(closed.items or 0 for closed in self.closed if closed.removed)
        return closed + (self._items if self._file.removed else 0)

    @property
    def removed(self) -> bool:
        """Whether the open file was removed."""
        return self._file.removed

    def append(self, lines: bytes, items: int, room: float) -> None:
        """Append whole lines.

        Args:
            lines: One or more lines.
            items: Number of their items.
            room: Bytes left to the bound. Files are closed early where it is short, because compression makes room.

        Raises:
            JournalError: They could not be written; nothing of them remains.
        """
        most = min(self._segment_bytes, max(room / _FILES_IN_ROOM, _SMALLEST))
        if self._file.broken or (self._file.size and self._file.size + len(lines) > most):
            self._rotate()
        self._file.append(*((b"\n", lines) if self._torn else (lines,)))
        self._torn = False
        self._items += items

    def drop_oldest(self) -> int:
        """Remove the oldest closed file, and return the number of its items."""
        oldest = self.closed.pop(0)
        if oldest in self._unsettled:
            self._unsettled.remove(oldest)
        self._closed_bytes -= oldest.size
        return oldest.remove()

    def close(self) -> None:
        """Close the open file."""
        self._file.close()

    def _opened(self) -> tuple[AppendFile, bool]:
        """Return the open file, and whether a killed process left half a line at its end.

        Such a line is ended by the next append, so that this one does not become part of it.
        """
        file = AppendFile(self._folder / f"{self._stem}{SUFFIX}", fsync=self._fsync)
        return file, file.size > 0 and file.read(1, file.size - 1) != b"\n"

    def _rotate(self) -> None:
        """Close the file, and begin a new one under its name."""
        number = self.closed[-1].number + 1 if self.closed else 1
        path = self._folder / f"{self._stem}.{number:0{_DIGITS}}{SUFFIX}"
        try:
            self._file.path.rename(path)
        except OSError as error:
            raise JournalError(message(self._file.path, error)) from error
        self._file.close()
        closed = ClosedFile(number, path, self._items, size=self._file.size)
        self.closed.append(closed)
        self._unsettled.append(closed)
        self._closed_bytes += closed.size
        self._items = 0
        self._compressor.add(path)
        self._file, self._torn = self._opened()

    def _compress(self, path: Path) -> None:
        if compressed(path).exists():
            path.unlink(missing_ok=True)  # its process was killed between the two
        else:
            self._compressor.add(path)

    def _list_closed(self) -> list[ClosedFile]:
        pattern = re.compile(rf"{re.escape(self._stem)}\.(\d{{{_DIGITS},}}){re.escape(SUFFIX)}(?:\.gz)?")
        numbers = {int(found[1]) for path in self._folder.glob("*") if (found := pattern.fullmatch(path.name))}
        name = f"{self._stem}.{{:0{_DIGITS}}}{SUFFIX}"
        return [ClosedFile(number, self._folder / name.format(number)) for number in sorted(numbers)]


def _lines(path: Path) -> int:
    """Return the number of lines of a closed file; 1 if it cannot be read."""
    packed = compressed(path)
    try:
        with gzip.open(packed) if packed.exists() else path.open("rb") as file:
            return sum(1 for _ in file)
    except (OSError, EOFError):
        return 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
