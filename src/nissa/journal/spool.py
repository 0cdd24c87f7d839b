"""Spool: export requests on disk, in the form in which they are sent, until a collector accepted them."""

import contextlib
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from pathlib import Path
from typing import Final, Self

from nissa.errors import JournalError
from nissa.journal.append_file import message
from nissa.journal.cursor_file import CursorFile
from nissa.journal.framing import HEADER_BYTES, KINDS, SIGNALS, Frame, Kind, Signal, content_bytes
from nissa.journal.lane import DamagedFrame, Lane, Segment, frames_of, segments_of
from nissa.journal.owner_lock import OwnerLock, owner_of

LIMIT_BYTES: Final = 1 << 30
"""Default bound of a spool: 1 GiB."""

SEGMENT_BYTES: Final = 4 << 20
"""Default size of a segment."""

_LOCK: Final = "owner.lock"
_DESTINATION: Final = "destination.json"
_CURSORS: Final = "cursors"
_LANES: Final = tuple((signal, kind) for signal in SIGNALS for kind in KINDS)
_SEGMENTS_IN_LIMIT: Final = 8
"""Minimum number of segments that a bound has room for: what is dropped at the bound is dropped by segments."""


class Spool:
    """Export requests of one process in one folder; use `create` or `take_over`.

    Frames of each signal are delivered in the order in which they were appended. At the bound, the oldest segment of
    ``bulk`` frames is dropped, and one of ``lifecycle`` frames only where nothing else is left. A process that is killed
    loses no frame whose `append` returned.

    All methods belong to one thread. In a forked child they have no effect, and `append` raises.

    Args:
        folder: The folder, locked by ``lock``.
        lock: Lock of the folder.
        destinations: Endpoint and protocol by signal, without credentials.
        limit_bytes: Bound of all segments.
        segment_bytes: Size of a segment.
        fsync: Whether each frame is forced to the disk, for the death of the machine.
        keep: Whether delivered segments are kept.

    Attributes:
        dropped: Undelivered items that were removed at the bound or with their folder.
        damaged: Undelivered items that could not be read, at least.
    """

    def __init__(
        self,
        folder: Path,
        lock: OwnerLock,
        destinations: Mapping[Signal, str],
        *,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = False,
        keep: bool = False,
    ) -> None:
        self.folder = folder
        self.destinations = dict(destinations)
        self.dropped: Counter[Signal] = Counter()
        self.damaged: Counter[Signal] = Counter()
        self._limit = limit_bytes
        self._keep = keep
        self._owner = os.getpid()
        self._closed = False
        self._sequence = 0
        # Undelivered frames of files that were removed while they were open, until they are appended again.
        self._rescued: deque[Frame] = deque()
        size = min(segment_bytes, max(1, limit_bytes // _SEGMENTS_IN_LIMIT))
        self._lanes = {
            (signal, kind): Lane(folder, signal, kind, segment_bytes=size, fsync=fsync, keep=keep, damaged=self.damaged)
            for signal, kind in _LANES
        }
        self._lock: OwnerLock | None = lock
        try:
            self._cursors = CursorFile(folder / _CURSORS, len(_LANES))
        except JournalError:
            lock.release()
            raise
        self._load()

    @classmethod
    def create(
        cls,
        folder: Path,
        destinations: Mapping[Signal, str],
        *,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = False,
        keep: bool = False,
    ) -> Self:
        """Create a spool, or continue the one that a dead process with the same destinations left in the folder.

        Frames for other destinations are moved aside to ``<folder>.1``, so that they are never sent to the new ones.

        Raises:
            JournalError: The folder cannot be written, or a living process uses it; the message states the fix.
        """
        lock = _acquired(folder)
        try:
            if not _same_destination(folder, destinations):
                _move_aside(folder)
                lock.release()
                lock = _acquired(folder)
            _write_destination(folder, destinations)
        except OSError as error:
            lock.release()
            raise JournalError(message(folder, error)) from error
        return cls(
            folder, lock, destinations, limit_bytes=limit_bytes, segment_bytes=segment_bytes, fsync=fsync, keep=keep
        )

    @classmethod
    def take_over(
        cls,
        folder: Path,
        *,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = False,
        keep: bool = False,
    ) -> Self | None:
        """Return the spool that a dead process of the same user left in a folder, to deliver it.

        Compare `destinations_of` first: opening a spool verifies all of its frames. Return None if there is no spool, if
        its owner lives or is another user, or if the file system has no locks.

        Raises:
            JournalError: The folder cannot be written.
        """
        path = folder / _LOCK
        destinations = destinations_of(folder)
        if destinations is None or not path.is_file() or not (_own(folder) and _own(path)):
            return None
        lock = OwnerLock.acquire(path, create=False)
        if lock is None:
            return None
        if not lock.works or destinations_of(folder) != destinations:
            lock.release()
            return None
        return cls(
            folder, lock, destinations, limit_bytes=limit_bytes, segment_bytes=segment_bytes, fsync=fsync, keep=keep
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(lane.size_bytes for lane in self._lanes.values())

    def append(self, signal: Signal, payload: bytes, items: int, *, time_unix_nano: int, kind: Kind = "bulk") -> None:
        """Append an export request.

        Args:
            signal: Its signal.
            payload: gzip-compressed serialized ``Export<Signal>ServiceRequest``.
            items: Number of spans, metric points or log records.
            time_unix_nano: Time of the append.
            kind: ``lifecycle`` frames are dropped at the bound only where there are no ``bulk`` ones.

        Raises:
            JournalError: It could not be written, for example because the disk is full or the folder was removed. Nothing
                of it remains. Try again later: the folder is then created again.
        """
        self._require_owner()
        lane = self._lanes[signal, kind]
        self._restore(lane)
        while self._rescued:
            frame = self._rescued[0]
            self._append(self._lanes[frame.signal, frame.kind], frame.payload, frame.items, frame.time_unix_nano)
            self._rescued.popleft()
        self._append(lane, payload, items, time_unix_nano)

    def _append(self, lane: Lane, payload: bytes, items: int, time_unix_nano: int) -> None:
        if not self._make_room(HEADER_BYTES + len(payload), lane.kind):
            self.dropped[lane.signal] += items
            return
        lane.append(payload, items, self._sequence, time_unix_nano)
        self._sequence += 1

    def peek(self, signal: Signal) -> Frame | None:
        """Return the oldest frame that is not delivered, None if all are; damaged frames are counted and skipped."""
        return next(iter(self.pending(signal, 0)), None)

    def pending(self, signal: Signal, limit_bytes: int) -> list[Frame]:
        """Return the oldest frames that are not delivered, as many as have at most so many bytes of content, at least one.

        Damaged frames are counted and skipped.
        """
        found: list[Frame] = []
        lanes = [self._lanes[signal, kind].upcoming() for kind in KINDS] if self._mine else []
        for frame in merge(*lanes, key=lambda frame: frame.position.header.sequence):
            limit_bytes -= content_bytes(frame.payload)
            if found and limit_bytes < 0:
                break
            found.append(frame)
        return found

    def advance(self, frame: Frame) -> None:
        """Record that the oldest frame that `peek` or `pending` returned was delivered or refused; delivered segments are removed."""
        if not self._mine:
            return
        key = frame.signal, frame.kind
        lane = self._lanes[key]
        if lane.advance(frame):
            # A failure is not an error: the frame would be delivered once more after a restart, with the same ids.
            self._cursors.write(_LANES.index(key), lane.cursor)

    def waiting(self, signal: Signal) -> int:
        """Return the number of items that are not delivered."""
        if not self._mine:
            return 0
        rescued = sum(frame.items for frame in self._rescued if frame.signal == signal)
        return rescued + sum(self._lanes[signal, kind].waiting for kind in KINDS)

    def close(self) -> None:
        """Release the folder; remove it if everything is delivered, unless it is kept. Calling it again has no effect."""
        if not self._mine:
            return
        self._closed = True
        for lane in self._lanes.values():
            lane.close()
        self._cursors.close()
        if not self._keep and not any(lane.waiting for lane in self._lanes.values()):
            self._remove_files()
        if self._lock is not None:
            self._lock.release()

    @property
    def _mine(self) -> bool:
        return not self._closed and os.getpid() == self._owner

    def _require_owner(self) -> None:
        if os.getpid() != self._owner:
            raise JournalError(
                f"{self.folder} belongs to the parent process {self._owner}. Start a run of this process."
            )
        if self._closed:
            raise JournalError(f"{self.folder} is closed.")

    def _load(self) -> None:
        for slot, lane in enumerate(self._lanes.values()):
            self._sequence = max(self._sequence, lane.load(self._cursors.read(slot)))

    def _restore(self, lane: Lane) -> None:
        """Detect a removed folder; create it again at the append after the one that detected it."""
        if self._lock is None:
            self._create_again()
        if self._lock is None or self._lock.removed or lane.removed:
            lost = self._forget_removed()
            what = f", with {lost:,} items that were not delivered" if lost else ""
            raise JournalError(f"{self.folder} was removed while it was in use{what}. It will be created again.")

    def _create_again(self) -> None:
        lock = _acquired(self.folder)
        try:
            _write_destination(self.folder, self.destinations)
            cursors = CursorFile(self.folder / _CURSORS, len(_LANES))
        except (OSError, JournalError) as error:
            lock.release()
            raise error if isinstance(error, JournalError) else JournalError(message(self.folder, error)) from error
        self._cursors.close()
        self._lock, self._cursors = lock, cursors

    def _forget_removed(self) -> int:
        """List again what is on disk, and return the number of items that are lost: those of files that were not open."""
        before = {signal: self.waiting(signal) for signal in SIGNALS}
        found = [frame for lane in self._lanes.values() if lane.removed for frame in lane.rescue()]
        self._rescued.extend(sorted(found, key=lambda frame: frame.position.header.sequence))
        if self._lock is not None and self._lock.removed:
            self._lock.release()
            self._lock = None
        self._load()
        lost = Counter({signal: before[signal] - self.waiting(signal) for signal in SIGNALS})
        self.dropped += lost
        return lost.total()

    def _make_room(self, length: int, kind: Kind) -> bool:
        """Drop segments until a frame fits; return False if it cannot fit."""
        if length > self._limit:
            return False
        while self.size_bytes + length > self._limit:
            lane = self._to_shorten(kind)
            if lane is None:
                return False
            self.dropped += Counter({lane.signal: lane.drop_oldest()})
        return True

    def _to_shorten(self, kind: Kind) -> Lane | None:
        """Return the lane whose oldest segment is needed least: delivered before bulk before lifecycle, then by age."""

        def rank(lane: Lane) -> tuple[bool, bool, int]:
            oldest: Segment = lane.segments[0]
            return lane.undelivered(oldest) > 0, lane.kind == "lifecycle", oldest.begun

        lanes = [lane for lane in self._lanes.values() if lane.segments]
        lane = min(lanes, key=rank, default=None)
        undelivered, lifecycle = rank(lane)[:2] if lane is not None else (False, False)
        return None if undelivered and lifecycle and kind == "bulk" else lane

    def _remove_files(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be removed is found, and removed, by the next start
            for signal, kind in _LANES:
                for _, path in segments_of(self.folder, signal, kind):
                    path.unlink(missing_ok=True)
            for name in (_CURSORS, _DESTINATION, _LOCK):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()


def frames(
    folder: Path, damaged: list[DamagedFrame] | None = None, *, signals: Iterable[Signal] = SIGNALS
) -> Iterator[Frame]:
    """Yield all frames of a spool, delivered or not, by signal and in order; a process may still write to it.

    Args:
        folder: Folder of the spool.
        damaged: Receives the parts that could not be read.
        signals: Signals whose frames are yielded.
    """
    damaged = [] if damaged is None else damaged
    for signal in signals:
        lanes = [frames_of(folder, signal, kind, damaged) for kind in KINDS]
        yield from merge(*lanes, key=lambda frame: frame.position.header.sequence)


def spools(folder: Path) -> list[Path]:
    """Return the folders of the spools of a run, sorted by name; empty if there are none."""
    return sorted(path for path in folder.glob("spool*") if path.is_dir() and not path.is_symlink() and _is_spool(path))


def destinations_of(folder: Path) -> dict[Signal, str] | None:
    """Return the destinations of a spool by signal; None if they cannot be read."""
    try:
        found = json.loads((folder / _DESTINATION).read_text())["destinations"]
        return {signal: str(found[signal]) for signal in SIGNALS if signal in found}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_spool(folder: Path) -> bool:
    return (folder / _DESTINATION).exists() or any(segments_of(folder, *lane) for lane in _LANES)


def _acquired(folder: Path) -> OwnerLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(message(folder, error)) from error
    lock = OwnerLock.acquire(folder / _LOCK)
    if lock is None:
        raise JournalError(
            f"{folder} is in use by {owner_of(folder / _LOCK)}. Give each process a run id of its own, with run_id= or "
            "NISSA_RUN_ID, or a rank, with RANK."
        )
    return lock


def _same_destination(folder: Path, destinations: Mapping[Signal, str]) -> bool:
    """Return whether the folder contains no frames, or frames for the same destinations."""
    found = destinations_of(folder)
    return found == dict(destinations) or not any(segments_of(folder, *lane) for lane in _LANES)


def _move_aside(folder: Path) -> None:
    number = 1
    while folder.with_name(f"{folder.name}.{number}").exists():
        number += 1
    folder.rename(folder.with_name(f"{folder.name}.{number}"))


def _write_destination(folder: Path, destinations: Mapping[Signal, str]) -> None:
    path = folder / _DESTINATION
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"version": 1, "destinations": dict(destinations)}, indent=1) + "\n")
    draft.replace(path)


def _own(path: Path) -> bool:
    """Return whether a path belongs to this user and is not a symbolic link."""
    found = path.lstat()
    return not path.is_symlink() and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())
