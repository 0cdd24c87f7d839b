"""Spools that dead processes left behind: a later start with the same destination delivers them."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nissa.errors import JournalError
from nissa.journal import SIGNALS, Kind, Signal, Spool, destinations_of, spools
from nissa.otel.export.export_log import ITEMS, tally

if TYPE_CHECKING:
    from collections import Counter

    from nissa.otel.export.spool_sink import Journal

_logger = logging.getLogger("nissa")


class JournalWithLeftovers:
    """The journal of this process; when it is empty, also what earlier processes left in theirs.

    Undelivered frames of others do not count as waiting: a flush waits only for what this process has exported.

    Args:
        own: Journal that this process writes to.
        runs: Folder that contains the folders of the runs.
        destinations: Destination per signal; only spools with the same ones are taken over.
    """

    def __init__(self, own: "Journal", runs: Path, destinations: "Mapping[Signal, str]") -> None:
        self._own = own
        self._candidates: Iterator[Path] = _spools_of(runs, destinations)
        self._current: Spool | None = None
        self._delivered: dict[Signal, int] = {}
        self._lent: dict[Signal, list[Any]] = {}  # frames of the current leftover by signal, until they are delivered

    @property
    def dropped(self) -> "Counter[Signal]":
        """Items per signal that were removed at the bound of the own journal."""
        return self._own.dropped

    @property
    def size_bytes(self) -> int:
        """Bytes of the own journal."""
        return self._own.size_bytes

    def append(self, signal: Signal, payload: bytes, items: int, *, time_unix_nano: int, kind: Kind = "bulk") -> None:
        """Append a request to the own journal."""
        self._own.append(signal, payload, items, time_unix_nano=time_unix_nano, kind=kind)

    def pending(self, signal: Signal, limit_bytes: int) -> list[Any]:
        """Return the oldest frames of the own journal that are not delivered, else of an earlier process."""
        return self._own.pending(signal, limit_bytes) or self._leftover(signal, limit_bytes)

    def _leftover(self, signal: Signal, limit_bytes: int) -> list[Any]:
        if self._current is None and not self._take_next():
            return []
        assert self._current is not None  # noqa: S101 - for the type checker
        found: list[Any] = [*self._current.pending(signal, limit_bytes)]
        self._lent[signal] = found
        if not found and not any(map(self._current.waiting, SIGNALS)):
            self._finish()
        return found

    def _take_next(self) -> bool:
        for folder in self._candidates:
            try:
                self._current = Spool.take_over(folder)
            except JournalError as error:
                _logger.warning("What an earlier run left in %s cannot be delivered: %s", folder, error)
            if self._current is not None:
                self._delivered = {}
                return True
        return False

    def _finish(self) -> None:
        spool, self._current = self._current, None
        if spool is None:
            return
        spool.close()
        self._lent.clear()
        if self._delivered:
            counts = tally({ITEMS[signal]: count for signal, count in self._delivered.items()})
            _logger.info("Delivered what an earlier run had left in %s: %s.", spool.folder, counts)

    def advance(self, frame: Any) -> None:
        """Move the cursor of the journal that a frame is from."""
        lent = self._lent.get(frame.signal, [])
        if self._current is not None and any(each is frame for each in lent):
            self._current.advance(frame)
            self._delivered[frame.signal] = self._delivered.get(frame.signal, 0) + frame.items
        else:
            self._own.advance(frame)

    def waiting(self, signal: Signal) -> int:
        """Return the number of items of the own journal that are not delivered."""
        return self._own.waiting(signal)

    def close(self) -> None:
        """Close all journals; what is not delivered stays in them."""
        self._finish()
        self._own.close()


def _spools_of(runs: Path, destinations: "Mapping[Signal, str]") -> Iterator[Path]:
    for run in sorted(runs.iterdir()) if runs.is_dir() else ():
        if run.is_dir() and not run.is_symlink():
            yield from (folder for folder in spools(run) if destinations_of(folder) == dict(destinations))
