"""Queue of frames of one signal and kind in segment files: append at the end, read behind a cursor at the beginning."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from nissa.journal.append_file import AppendFile
from nissa.journal.cursor_file import Cursor
from nissa.journal.framing import (
    HEADER_BYTES,
    Damage,
    Frame,
    Header,
    Kind,
    Signal,
    decode_header,
    intact,
    walk,
)
from nissa.journal.regular_file import open_regular, read_regular

SUFFIX: Final = ".spool"
_DIGITS: Final = 6


@dataclass(slots=True)
class Segment:
    """File of a lane.

    Args:
        number: Its number, ascending from 1.
        path: The file.
        size: Bytes of its frames.
        items: Items in its frames, damaged ones included.
        begun: Time of its first frame, nanoseconds since the Unix epoch.
    """

    number: int
    path: Path
    size: int = 0
    items: int = 0
    begun: int = 0


def segments_of(folder: Path, signal: Signal, kind: Kind) -> list[tuple[int, Path]]:
    """Return the numbers and files of a lane's segments, oldest first."""
    pattern = re.compile(rf"{signal}-{kind}-(\d{{{_DIGITS},}}){re.escape(SUFFIX)}")
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are matched, paths are made of few
    except OSError:
        return []
    return sorted((int(found[1]), folder / name) for name in names if (found := pattern.fullmatch(name)))


class Lane:
    """Frames of one signal and kind.

    Args:
        folder: Folder of the segments.
        signal: Signal of the frames.
        kind: Kind of the frames.
        segment_bytes: Size at which a new segment is begun.
        fsync: Whether each frame is forced to the disk.
        keep: Whether delivered segments are kept.
        damaged: Receives the number of items that could not be read.

    Attributes:
        segments: Segments, oldest first.
        cursor: Place of the next frame to deliver.
    """

    def __init__(
        self,
        folder: Path,
        signal: Signal,
        kind: Kind,
        *,
        segment_bytes: int,
        fsync: bool,
        keep: bool,
        damaged: Counter[Signal],
    ) -> None:
        self.signal = signal
        self.kind = kind
        self.segments: list[Segment] = []
        self.cursor = Cursor()
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._keep = keep
        self._damaged = damaged
        self._file: AppendFile | None = None
        self._head: Frame | None = None

    def load(self, cursor: Cursor) -> int:
        """List the segments on disk, and return the sequence number after the last frame.

        No frame is appended to these segments: the last one may end with a torn frame.
        """
        self.close()
        self.cursor = cursor
        self.segments = []
        sequence = 0
        for number, path in segments_of(self._folder, self.signal, self.kind):
            segment, last = _listed(number, path)
            self.segments.append(segment)
            sequence = max(sequence, last + 1)
        return sequence

    @property
    def waiting(self) -> int:
        """Number of items that are not delivered."""
        return sum(map(self.undelivered, self.segments))

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def removed(self) -> bool:
        """Whether the segment that is appended to was removed."""
        return self._file is not None and self._file.removed

    def undelivered(self, segment: Segment) -> int:
        """Return the number of items of a segment that are not delivered."""
        if segment.number == self.cursor.segment:
            return segment.items - self.cursor.items
        return segment.items if segment.number > self.cursor.segment else 0

    def append(self, payload: bytes, items: int, sequence: int, time_unix_nano: int) -> None:
        """Append a frame.

        Raises:
            JournalError: It could not be written; nothing of it remains.
        """
        file = self._writable()
        segment = self.segments[-1]
        header = Header(
            crc32(payload),
            len(payload),
            items,
            segment.items,
            sequence,
            time_unix_nano,
            self.signal,
            self.kind,
            file.size,
        )
        file.append(header.encode(), payload)
        segment.begun = segment.begun or time_unix_nano
        segment.size = file.size
        segment.items += items

    def head(self) -> Frame | None:
        """Return the oldest frame that is not delivered; damaged ones are counted and skipped."""
        while self._head is None and (segment := self._current()) is not None:
            self._head = self._read(segment)
        return self._head

    def upcoming(self) -> Iterator[Frame]:
        """Yield the frames that are not delivered, oldest first, up to one that is damaged."""
        frame = self.head()
        while frame is not None:
            yield frame
            frame = self._following(frame)

    def _following(self, frame: Frame) -> Frame | None:
        """Return the frame after another; None where there is none, or where it is damaged."""
        number, offset = frame.position.segment, frame.position.header.end
        for segment in self.segments:
            begin = offset if segment.number == number else 0
            if segment.number >= number and begin < segment.size:
                try:
                    return self._intact(segment, begin)
                except OSError:
                    return None
        return None

    def advance(self, frame: Frame) -> bool:
        """Move the cursor behind a frame; return False if it is behind already: the frame was dropped meanwhile."""
        segment, header = frame.position.segment, frame.position.header
        if (segment, header.offset) < (self.cursor.segment, self.cursor.offset):
            return False
        self.cursor = Cursor(segment, header.end, header.items_after)
        self._head = None
        self._current()  # removes a segment that is delivered to its end
        return True

    def rescue(self) -> list[Frame]:
        """Return the undelivered frames of the segment that is appended to; its file can be read even after its removal."""
        file = self._file
        if file is None or file.broken:
            return []
        segment = self.segments[-1]
        here = segment.number == self.cursor.segment
        if segment.number < self.cursor.segment:
            return []
        data = file.read(segment.size, 0)
        parts = walk(data, *((self.cursor.offset, self.cursor.items) if here else ()))
        headers = [found for found in parts if isinstance(found, Header)]
        return [Frame.of(segment.number, each, data[each.payload_offset : each.end]) for each in headers]

    def drop_oldest(self) -> int:
        """Remove the oldest segment, and return how many of its items were not delivered."""
        segment = self.segments.pop(0)
        if not self.segments:
            self.close()
        lost = self.undelivered(segment)
        if segment.number >= self.cursor.segment:
            self._head = None
            self.cursor = Cursor(segment.number + 1)
        segment.path.unlink(missing_ok=True)
        return lost

    def close(self) -> None:
        """Close the segment that is appended to; a later frame begins a new one."""
        self._head = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _writable(self) -> AppendFile:
        file = self._file
        if file is not None and (file.broken or file.size >= self._segment_bytes):
            file.close()
            file = self._file = None
        if file is None:
            last = self.segments[-1].number if self.segments else 0
            number = max(last, self.cursor.segment) + 1
            path = self._folder / f"{self.signal}-{self.kind}-{number:0{_DIGITS}}{SUFFIX}"
            file = self._file = AppendFile(path, fsync=self._fsync)
            self.segments.append(Segment(number, path))
        return file

    def _current(self) -> Segment | None:
        """Return the segment at the cursor, None if all frames are delivered; remove those before it."""
        for segment in [*self.segments]:
            if segment.number < self.cursor.segment:
                self._finish(segment)
                continue
            if segment.number > self.cursor.segment:
                self.cursor = Cursor(segment.number)
            if self.cursor.offset < segment.size:
                return segment
            if self._file is None or segment is not self.segments[-1]:
                self._finish(segment)
        return None

    def _finish(self, segment: Segment) -> None:
        """Remove a segment that is delivered to its end, unless it is kept."""
        if not self._keep:
            self.segments.remove(segment)
            segment.path.unlink(missing_ok=True)

    def _read(self, segment: Segment) -> Frame | None:
        """Return the frame at the cursor; if it is damaged, count it, move the cursor behind it and return None."""
        try:
            frame = self._intact(segment, self.cursor.offset)
            if frame is not None:
                return frame
            self._skip(segment, self._bytes(segment, segment.size, 0))
        except OSError:  # removed, or the disk cannot read it
            self._skip(segment, b"")
        return None

    def _intact(self, segment: Segment, offset: int) -> Frame | None:
        """Return the frame at an offset, None if it is damaged; raises OSError as `_bytes` does."""
        header = decode_header(self._bytes(segment, HEADER_BYTES, offset), base=offset)
        payload = b"" if header is None else self._bytes(segment, header.length, header.payload_offset)
        return Frame.of(segment.number, header, payload) if header is not None and intact(header, payload) else None

    def _bytes(self, segment: Segment, size: int, offset: int) -> bytes:
        """Read from a segment.

        Raises:
            OSError: It was removed, and is not the one that is appended to; or the disk cannot read it.
        """
        if self._file is not None and not self._file.broken and segment is self.segments[-1]:
            return self._file.read(size, offset)
        with segment.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _skip(self, segment: Segment, data: bytes) -> None:
        place, items = self.cursor.offset, self.cursor.items
        damage = next(walk(data[: segment.size], place, items), None)
        if not isinstance(damage, Damage) or damage.cut:
            damage = Damage(place, segment.size, segment.items - items, cut=True)
        self._damaged[self.signal] += damage.items
        self.cursor = Cursor(segment.number, damage.end, items + damage.items)


@dataclass(frozen=True, slots=True)
class DamagedFrame:
    """Part of a segment that could not be read; ``str()`` returns ``spool/traces-bulk-000001.spool:byte 4711``.

    Args:
        file: Folder and name of the segment.
        offset: First byte of the part.
        items: Number of lost items, at least.
        cut: Whether it is the end of the segment, which a killed process leaves and a living one may be writing.
        reason: Reason, where the whole segment could not be read.
    """

    file: str
    offset: int
    items: int
    cut: bool
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.file}:byte {self.offset}"


def frames_of(folder: Path, signal: Signal, kind: Kind, damaged: list[DamagedFrame]) -> Iterator[Frame]:
    """Yield all frames of a lane, delivered or not; one segment is in memory at a time."""
    for number, path in segments_of(folder, signal, kind):
        name = f"{folder.name}/{path.name}"
        try:
            data = read_regular(path)
        except FileNotFoundError:  # delivered meanwhile
            continue
        except OSError as error:
            damaged.append(DamagedFrame(name, 0, 1, cut=False, reason=error.strerror or str(error)))
            continue
        for found in walk(data):
            if isinstance(found, Damage):
                damaged.append(DamagedFrame(name, found.offset, found.items, found.cut))
            else:
                yield Frame.of(number, found, data[found.payload_offset : found.end])


def _listed(number: int, path: Path) -> tuple[Segment, int]:
    """Return a segment that is on disk, and the sequence number of its last frame, -1 if it has none."""
    segment, last = Segment(number, path), -1
    for found in _parts(path):
        if isinstance(found, Damage):
            segment.items += found.items
        else:
            segment.items = found.items_after
            segment.begun = segment.begun or found.time_unix_nano
            last = found.sequence
        segment.size = found.end
    return segment, last


def _parts(path: Path) -> list[Header | Damage]:
    """Return the parts of a segment; payloads are verified only where the headers do not follow one another."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0) as file:
            return _chained(file.fileno()) or [*walk(read_regular(path))]
    except OSError:
        return []


def _chained(descriptor: int) -> list[Header | Damage]:
    """Return the headers that begin where the frame before them ends; empty if they do not reach the end of the file."""
    headers: list[Header | Damage] = []
    size, offset = os.fstat(descriptor).st_size, 0
    while offset < size:
        header = decode_header(os.pread(descriptor, HEADER_BYTES, offset), base=offset)
        if header is None or header.end > size:
            return []
        headers.append(header)
        offset = header.end
    return headers
