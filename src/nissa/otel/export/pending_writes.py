"""Requests that wait to be written: kept in memory while the disk is full or the folder is gone, and written afterwards."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from nissa.errors import JournalError
from nissa.journal import Kind, Signal
from nissa.semconv import spans as names

if TYPE_CHECKING:
    from nissa.otel.export.export_log import ExportLog

MAX_BYTES: Final = 64 * 1024 * 1024
"""Maximum size of the requests that wait; above it the oldest are lost."""

REWRITE_SECONDS: Final = 1.0
"""Time between two attempts to write."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A request on its way to the disk.

    Args:
        signal: Signal of the request.
        payload: The bytes to write.
        items: Number of spans, log records or points in it.
        kind: ``lifecycle``, or ``bulk`` for what gives way first when the journal is full.
        time_unix_nano: Time at which it was handed over.
    """

    signal: Signal
    payload: bytes
    items: int
    kind: Kind = "bulk"
    time_unix_nano: int = field(default_factory=time_ns)


class PendingWrites:
    """Queue in front of a writer that may fail.

    Args:
        write: Writes an entry; raises JournalError if it cannot.
        dropped: Returns the items that the journal has dropped at its bound.
        log: Receives failures, recoveries and losses.
    """

    def __init__(
        self, write: Callable[[Entry], object], dropped: Callable[[], Counter[Signal]], log: "ExportLog"
    ) -> None:
        self._write = write
        self._dropped = dropped
        self._log = log
        self._already_dropped: Counter[Signal] = Counter()
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def items(self) -> Counter[Signal]:
        """Number of waiting items per signal."""
        found = Counter[Signal]()
        for entry in self._entries:
            found[entry.signal] += entry.items
        return found

    def add(self, entry: Entry) -> None:
        """Write an entry, after those that wait."""
        self._entries.append(entry)
        self._bytes += len(entry.payload)
        self.flush()

    def flush(self) -> None:
        """Write what waits, in its order, until a write fails."""
        while self._entries:
            entry = self._entries[0]
            try:
                self._write(entry)
            except JournalError as error:
                self._log.unwritable(str(error))
                self._keep_to_bound()
                return
            self._remove_first()
        self._log.written()
        self._count_dropped()

    def _count_dropped(self) -> None:
        dropped = Counter(self._dropped())
        for signal, items in (dropped - self._already_dropped).items():
            self._log.lost(signal, items, "the journal has reached its bound (files.max_bytes, files.max_spool_bytes)")
        self._already_dropped = dropped

    def _remove_first(self) -> Entry:
        entry = self._entries.popleft()
        self._bytes -= len(entry.payload)
        return entry

    def _keep_to_bound(self) -> None:
        while self._bytes > MAX_BYTES:
            entry = self._remove_first()
            self._log.lost(entry.signal, entry.items, "the disk cannot be written, and the memory for it is full")


def by_kind(spans: Sequence[Any]) -> Iterator[tuple[Kind, list[Any]]]:
    """Yield spans by kind: those of steps are many and give way first, all others belong to the lifecycle."""
    steps = [span for span in spans if span.name == names.STEP]
    lifecycle = [span for span in spans if span.name != names.STEP]
    parts: tuple[tuple[Kind, list[Any]], ...] = (("lifecycle", lifecycle), ("bulk", steps))
    yield from ((kind, part) for kind, part in parts if part)
