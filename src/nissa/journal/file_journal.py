"""File mode of the journal: OTLP JSON lines for people and their tools, bounded by recording more rarely."""

import os
from collections import Counter
from math import log2
from pathlib import Path
from typing import Final, Self

from nissa.errors import JournalError
from nissa.journal.append_file import message
from nissa.journal.compression import Compressor
from nissa.journal.framing import SIGNALS, Kind, Signal
from nissa.journal.owner_lock import OwnerLock, owner_of
from nissa.journal.rotating_file import RotatingFile

LIMIT_BYTES: Final = 2 << 30
"""Default bound of the files of one process: 2 GiB."""

SEGMENT_BYTES: Final = 32 << 20
"""Default size at which a file is closed and compressed."""

METRICS_SHARE: Final = 0.75
"""Part of the bound that metrics may fill; the rest is for spans and log records."""

BULK_SHARES: Final = {"metrics": 0.9, "lifecycle": 0.5}
"""Part of each share that lines of kind ``bulk`` may fill."""

_SEGMENTS_IN_SHARE: Final = 16
MOST_THINNING: Final = 1 << 20
"""Largest value of `FileJournal.thinning`."""

_COMPRESSED_PER_BYTE: Final = 4
_COMPRESSED_AT_LEAST: Final = 1 << 16
_COMPRESSED_FOR_ROOM: Final = 1 << 20
_COMPRESSION_AT_END: Final = 0.5
"""Seconds of compression when the journal is closed; the next process of the run continues."""

_MOST_OWNERS: Final = 1_000
_GROUPS: Final[dict[Signal, str]] = {"metrics": "metrics", "traces": "lifecycle", "logs": "lifecycle"}


class FileJournal:
    """OTLP JSON lines of one process in ``traces``, ``metrics`` and ``logs`` files of a folder; use `create`.

    The files rotate, and closed ones are compressed. As the bound fills, `thinning` grows: the caller then records fewer
    sampled steps, so that a run of any length fits. Spans and log records have a share of the bound for themselves.

    All methods belong to one thread. In a forked child they have no effect, and `append` raises.

    Args:
        folder: The folder.
        suffix: Part of the file names after the signal, such as ``-rank0``.
        lock: Lock of the files with this suffix.
        limit_bytes: Bound of the files with this suffix, those of earlier processes included.
        segment_bytes: Size at which a file is closed.
        fsync: Whether each write is forced to the disk, for the death of the machine.

    Attributes:
        dropped: Items that were not written or were removed at the bound, or with their folder.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        lock: OwnerLock,
        *,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = False,
    ) -> None:
        self.folder = folder
        self.suffix = suffix
        self.dropped: Counter[Signal] = Counter()
        self._limits = {"metrics": METRICS_SHARE * limit_bytes, "lifecycle": (1 - METRICS_SHARE) * limit_bytes}
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._thinning = 1
        self._written: Counter[str] = Counter()
        self._bulk: Counter[str] = Counter()
        self._owner = os.getpid()
        self._closed = False
        self._lock: OwnerLock | None = lock
        self._compressor = Compressor()
        self._files = self._opened()
        for group in self._limits:
            self._thin(group, 0)

    @classmethod
    def create(
        cls,
        folder: Path,
        suffix: str = "",
        *,
        limit_bytes: int = LIMIT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = False,
    ) -> Self:
        """Open the files of a folder to append to them.

        If a living process writes to the files with this suffix, the suffix is extended to ``<suffix>-2`` and so on, so that
        both are recorded whole.

        Raises:
            JournalError: The folder cannot be written; the message states the fix.
        """
        lock, suffix = _acquired(folder, suffix)
        try:
            return cls(folder, suffix, lock, limit_bytes=limit_bytes, segment_bytes=segment_bytes, fsync=fsync)
        except JournalError:
            lock.release()
            raise

    @property
    def paths(self) -> dict[Signal, Path]:
        """Open file of each signal."""
        return {signal: self.folder / f"{signal}{self.suffix}.jsonl" for signal in SIGNALS}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files with this suffix."""
        return sum(file.size_bytes for file in self._files.values())

    @property
    def thinning(self) -> int:
        """Factor by which the caller lengthens the interval of sampled steps; a power of two that never decreases.

        It is 1 until half of the bound is filled, 2 until three quarters, 4 until seven eighths, and so on: each factor lasts
        for as many steps as the one before it.
        """
        return self._thinning

    def append(self, signal: Signal, lines: bytes, items: int, *, kind: Kind = "bulk") -> None:
        """Append whole lines, each an OTLP JSON export request.

        Args:
            signal: Their signal.
            lines: One or more lines.
            items: Number of spans, metric points or log records in them.
            kind: ``bulk`` lines are dropped at the bound; for ``lifecycle`` ones the oldest closed file is removed.

        Raises:
            JournalError: They could not be written, for example because the disk is full or the folder was removed. Nothing
                of them remains. Try again later: the folder is then created again.
        """
        self._require_owner()
        lines = lines if lines.endswith(b"\n") else lines + b"\n"
        self._restore(signal)
        self._compressor.work(_COMPRESSED_AT_LEAST + _COMPRESSED_PER_BYTE * len(lines))
        if not self._make_room(signal, len(lines), kind):
            self.dropped[signal] += items
            return
        group = _GROUPS[signal]
        self._files[signal].append(lines, items, self._limits[group] - self._size(group))

    def close(self) -> None:
        """Close the files. Calling it again has no effect."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        for file in self._files.values():
            file.close()
        self._compressor.finish(_COMPRESSION_AT_END)
        if self._lock is not None:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()

    def _require_owner(self) -> None:
        if os.getpid() != self._owner:
            raise JournalError(
                f"{self.folder} belongs to the parent process {self._owner}. Start a run of this process."
            )
        if self._closed:
            raise JournalError(f"{self.folder} is closed.")

    def _opened(self) -> dict[Signal, RotatingFile]:
        return {
            signal: RotatingFile(
                self.folder,
                f"{signal}{self.suffix}",
                segment_bytes=min(self._segment_bytes, int(self._limits[_GROUPS[signal]] / _SEGMENTS_IN_SHARE)),
                fsync=self._fsync,
                compressor=self._compressor,
            )
            for signal in SIGNALS
        }

    def _restore(self, signal: Signal) -> None:
        """Detect removed files; create them again at the append after the one that detected it."""
        if self._lock is None:
            self._lock, self.suffix = _acquired(self.folder, self.suffix)
            self._files = self._opened()
        if self._lock.removed or self._files[signal].removed:
            lost = Counter({each: file.removed_items for each, file in self._files.items()})
            for file in self._files.values():
                file.close()
            self._lock.release()
            self._lock = None
            self.dropped += lost
            raise JournalError(
                f"Files in {self.folder} were removed while they were in use, with {lost.total():,} items. They will be "
                "created again."
            )

    def _make_room(self, signal: Signal, length: int, kind: Kind) -> bool:
        """Remove closed files until lines fit; return False if they do not."""
        group = _GROUPS[signal]
        limit = self._limits[group]
        self._written[group] += length
        self._bulk[group] += length if kind == "bulk" else 0
        self._thin(group, length)
        if kind == "bulk":
            return self._filled(group, length) < 1 and self._fits(group, length)
        while self._size(group) + length > limit:
            longest = max(self._of(group), key=lambda each: (bool(each[1].closed), each[1].size_bytes))
            if length > limit or not longest[1].closed:
                return False
            self.dropped[longest[0]] += longest[1].drop_oldest()
        return True

    def _fits(self, group: str, length: int) -> bool:
        """Return whether bulk lines fit now; make room by compressing more of the closed files if they do not."""
        most = self._limits[group] * BULK_SHARES["metrics"]
        if self._size(group) + length > most:
            self._compressor.work(_COMPRESSED_FOR_ROOM)
        return self._size(group) + length <= most

    def _thin(self, group: str, length: int) -> None:
        filled = self._filled(group, length)
        wanted = MOST_THINNING if filled >= 1 else 1 << int(-log2(1 - filled))
        self._thinning = max(self._thinning, min(wanted, MOST_THINNING))

    def _filled(self, group: str, length: int) -> float:
        """Return the part of its share that bulk will have filled once everything is compressed.

        All metrics count as bulk. Of spans and log records it is the part that this process wrote of them.
        """
        bulk = 1.0 if group == "metrics" else self._bulk[group] / max(1, self._written[group])
        size = sum(file.expected_bytes for _, file in self._of(group)) + length
        return bulk * size / (BULK_SHARES[group] * self._limits[group])

    def _size(self, group: str) -> int:
        return sum(file.size_bytes for _, file in self._of(group))

    def _of(self, group: str) -> list[tuple[Signal, RotatingFile]]:
        return [(signal, file) for signal, file in self._files.items() if _GROUPS[signal] == group]


def _acquired(folder: Path, suffix: str) -> tuple[OwnerLock, str]:
    """Return the lock of a suffix that no living process uses, and that suffix."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(message(folder, error)) from error
    for number in range(1, _MOST_OWNERS):
        wanted = suffix if number == 1 else f"{suffix}-{number}"
        lock = OwnerLock.acquire(folder / f".owner{wanted}.lock")
        if lock is not None:
            return lock, wanted
    owner = owner_of(folder / f".owner{suffix}.lock")
    raise JournalError(f"{folder} is in use by {owner} and many others. Give each process a run id of its own.")
