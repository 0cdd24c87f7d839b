"""Compression of closed files in small parts, so that the thread that appends is never busy with it for long."""

import contextlib
import zlib
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Final

_SUFFIX: Final = ".gz"
_DRAFT: Final = ".draft"
_LEVEL: Final = 6
_GZIP: Final = 31
"""``wbits`` of zlib that writes a gzip header and trailer."""

_PART: Final = 1 << 20
"""Bytes that are compressed between two looks at the clock: about 20 ms."""


def compressed(path: Path) -> Path:
    """Return the path that a file has after its compression."""
    return path.with_name(path.name + _SUFFIX)


class Compressor:
    """Compresses files one after the other, each to ``<name>.gz``, and then removes the original.

    The compressed file appears whole, under its final name. If it cannot be written, for example because the disk is full,
    the original stays, and is tried again when the next file is added.
    """

    def __init__(self) -> None:
        self._waiting: deque[Path] = deque()
        self._failed: list[Path] = []
        self._job: _Job | None = None

    def add(self, path: Path) -> None:
        """Add a file that no longer changes."""
        self._waiting += [*self._failed, path]
        self._failed.clear()

    def work(self, most: int) -> None:
        """Compress up to ``most`` bytes."""
        while most > 0 and (job := self._current()) is not None:
            try:
                done = job.work(min(most, _PART))
            except OSError:
                job.abandon()
                self._job = None
                self._failed.append(job.source)
                return
            most -= done
            if job.finished:
                self._job = None

    def finish(self, seconds: float) -> None:
        """Compress what was added, for about so many seconds; the rest stays as it is."""
        end = monotonic() + seconds
        before = -1
        while monotonic() < end and self._left() != before:
            before = self._left()
            self.work(_PART)
        if self._job is not None:
            self._job.abandon()
            self._job = None

    def _left(self) -> int:
        """Return a number that changes as long as there is progress."""
        return sum(_size(path) for path in self._waiting) + (0 if self._job is None else self._job.left + 1)

    def _current(self) -> "_Job | None":
        while self._job is None and self._waiting:
            source = self._waiting.popleft()
            try:
                self._job = _Job(source)
            except FileNotFoundError:  # removed at the bound, or by a user
                continue
            except OSError:
                self._failed.append(source)
        return self._job


class _Job:
    def __init__(self, source: Path) -> None:
        self.source = source
        self.finished = False
        packed = compressed(source)
        self._draft = packed.with_name(packed.name + _DRAFT)
        self._input = source.open("rb", buffering=0)
        try:
            self._output = self._draft.open("wb", buffering=0)
        except OSError:
            self._input.close()
            raise
        self._stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self.left = _size(source)

    def work(self, most: int) -> int:
        """Compress up to ``most`` bytes, and return how many."""
        part = self._input.read(most)
        self._write(self._stream.compress(part))
        self.left -= len(part)
        if len(part) < most:
            self._write(self._stream.flush())
            self._close()
            self._draft.replace(compressed(self.source))
            self.source.unlink(missing_ok=True)
            self.finished = True
        return most

    def abandon(self) -> None:
        self._close()
        with contextlib.suppress(OSError):
            self._draft.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._output.write(rest) :]

    def _close(self) -> None:
        self._input.close()
        self._output.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
