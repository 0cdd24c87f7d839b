"""Processes that write a journal and report each append that returned, forked from the tests, to be killed."""

import os
import random
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Final

from nissa.journal import FileJournal, Signal, Spool

TO: Final[dict[Signal, str]] = {"metrics": "http://collector:4318/v1/metrics (http/protobuf)"}
_NUMBER: Final = struct.Struct("<I")
Append = Callable[[int], object]
"""Appends the record with a number."""


def payload(number: int) -> bytes:
    """Return a payload that names its number, of a size between 0 and 20 kB that is the same for the same number."""
    content = random.Random(number)  # noqa: S311 - repeatable
    return _NUMBER.pack(number) + content.randbytes((number * 7_919) % 20_000)


def number_of(content: bytes) -> int:
    """Return the number of a payload, and verify the rest."""
    (number,) = _NUMBER.unpack_from(content)
    assert content == payload(number)
    return int(number)


def spool_writer(folder: Path) -> Append:
    """Return a function that appends to a spool, and delivers two thirds of it."""
    spool = Spool.take_over(folder, segment_bytes=50_000) or Spool.create(folder, TO, segment_bytes=50_000)

    def append(number: int) -> None:
        kind = "lifecycle" if number % 2 else "bulk"
        spool.append("metrics", payload(number), 1, time_unix_nano=number + 1, kind=kind)  # type: ignore[arg-type]
        if number % 3:
            frame = spool.peek("metrics")
            assert frame is not None
            spool.advance(frame)

    return append


def file_writer(folder: Path) -> Append:
    """Return a function that appends to files."""
    journal = FileJournal.create(folder, segment_bytes=50_000)

    def append(number: int) -> None:
        journal.append("traces", b'{"n": %d, "payload": "%s"}' % (number, payload(number).hex().encode()), 1)

    return append


@contextmanager
def writer(make: Callable[[Path], Append], folder: Path, start: int) -> Iterator["Writer"]:
    """Fork a process that appends numbers from ``start`` on until it is killed, and reports each of them."""
    reports, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            append = make(folder)
            for number in range(start, 1 << 30):
                append(number)
                os.write(theirs, _NUMBER.pack(number))
        finally:
            os._exit(1)
    os.close(theirs)
    try:
        yield Writer(child, reports)
    finally:
        os.close(reports)


class Writer:
    """The process.

    Args:
        pid: Its id.
        reports: Its pipe.
    """

    def __init__(self, pid: int, reports: int) -> None:
        self.pid = pid
        self._reports = reports
        self._last: int | None = None

    def wait(self) -> None:
        """Wait for its first append."""
        if self._last is None:
            (self._last,) = _NUMBER.unpack(os.read(self._reports, _NUMBER.size))

    def kill(self, after: float) -> int:
        """Kill it so many seconds after its first append; return the number of its last append that returned."""
        self.wait()
        sleep(after)
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the writer ended by itself"
        while report := os.read(self._reports, _NUMBER.size):
            (self._last,) = _NUMBER.unpack(report)
        assert self._last is not None
        return self._last
