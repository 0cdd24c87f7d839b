"""Thread that compares replicas of a run: each access to the store is a network round trip."""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import torch

from nissa.distributed.replica_exchange import Follower, Leader
from nissa.distributed.replica_groups import Cohort, Source
from nissa.distributed.replica_reports import Comparison, Detail, Summary
from nissa.torch_compat import default_store, own_connection

if TYPE_CHECKING:
    from nissa.distributed.replica_exchange import ReplicaExchange

__all__ = ["Channel", "ReplicaThread"]

_logger = logging.getLogger("nissa")

_STORE_SECONDS: Final = 5.0
"""Longest time that the thread waits for the store. All keys that it reads exist, so that only a lost store takes that long."""

_FIRST_POLL_SECONDS, _LAST_POLL_SECONDS = 0.02, 1.0
"""Initial and maximum interval for polling the store while reports of other ranks are missing."""

_MOST_QUEUED: Final = 256
"""Maximum number of reports that wait for the thread; further ones are dropped and counted."""

_CROWDED: Final = 16
"""Number of waiting reports from which fewer steps are compared."""

_opened: Counter[str] = Counter()
"""Number of channels with the same title so far, so that a later one does not find the keys of an earlier one."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Comparison of one cohort of one watch.

    Args:
        title: Name in the store, the same on all ranks.
        cohort: Ranks that compare.
        on_result: Called with each result on the thread.
    """

    title: str
    cohort: Cohort
    on_result: Callable[[Comparison], None]

    @staticmethod
    def of(name: str, cohort: Cohort, on_result: Callable[[Comparison], None]) -> "Channel":
        """Return a channel with a title that no other of this process has. Ranks open channels in the same order."""
        title = f"{name}/{'-'.join(map(str, cohort.ranks))}" if len(cohort.ranks) <= 16 else f"{name}/{_range(cohort)}"  # noqa: PLR2004
        _opened[title] += 1
        return Channel(f"{title}/{_opened[title]}", cohort, on_result)


class ReplicaThread:
    """Thread of a run that compares the reports of its watches with those of other ranks.

    The thread starts with the first report. Publishing never waits. A fault of the store ends a channel, which is logged once;
    later reports of it are counted as failed.
    """

    def __init__(self) -> None:
        self._reports: SimpleQueue[tuple[Channel, Summary, Detail | None] | None] = SimpleQueue()
        self._exchanges: dict[str, ReplicaExchange | None] = {}
        self._channels: dict[str, Channel] = {}
        self._thread: threading.Thread | None = None
        self._store: Any = None
        self._until: float | None = None
        self._logged = False

    @property
    def active(self) -> bool:
        """Whether anything was published."""
        return self._thread is not None

    def publish(self, channel: Channel, summary: Summary, detail: Detail | None) -> None:
        """Send a report to the thread; never waits."""
        if self._until is not None:
            return
        if self._reports.qsize() >= _MOST_QUEUED:
            channel.on_result(_lost(channel, summary, "incomplete"))
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nissa-replicas", daemon=True)
            self._thread.start()
        self._reports.put((channel, summary, detail))

    def close(self, timeout: float) -> None:
        """Compare what all ranks have reported, remove the keys of this rank, and end; takes at most ``timeout`` seconds."""
        self._until = monotonic() + timeout / 2
        self._reports.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        pause = _FIRST_POLL_SECONDS
        while self._until is None or (monotonic() < self._until and self._pending):
            if self._receive(pause if self._pending else None):
                pause = _FIRST_POLL_SECONDS
            else:
                pause = min(2 * pause, _LAST_POLL_SECONDS if self._until is None else _FIRST_POLL_SECONDS * 4)
            for title in list(self._exchanges):
                self._guarded(title, lambda exchange: exchange.tick())
        for title in list(self._exchanges):
            self._guarded(title, lambda exchange: exchange.close())
        self._store = None

    @property
    def _pending(self) -> bool:
        return not self._reports.empty() or any(each is not None and each.pending for each in self._exchanges.values())

    def _receive(self, pause: float | None) -> bool:
        """Write the reports that are queued; wait for one for up to some seconds. Return whether there was any."""
        with suppress(Empty):
            received = self._reports.get(timeout=pause)
            waiting = self._reports.qsize()
            if received is not None:
                self._write(*received, crowded=waiting >= _CROWDED)
            for _ in range(waiting):
                received = self._reports.get()
                if received is not None:
                    self._write(*received)
            return True
        return False

    def _write(self, channel: Channel, summary: Summary, detail: Detail | None, *, crowded: bool = False) -> None:
        title = channel.title
        if title not in self._exchanges:
            self._channels[title] = channel
            self._exchanges[title] = None
            try:
                self._exchanges[title] = self._open(channel)
            except Exception as error:  # noqa: BLE001 - the store may be of any kind, or gone
                self._fail(title, error)
        if self._exchanges[title] is None:
            channel.on_result(_lost(channel, summary, "failed"))
            return
        if crowded:
            self._guarded(title, lambda exchange: exchange.thin())
        self._guarded(title, lambda exchange: exchange.publish(summary, detail))

    def _open(self, channel: Channel) -> "ReplicaExchange":
        if self._store is None:
            self._store = own_connection(default_store(), _STORE_SECONDS)
        store = torch.distributed.distributed_c10d.PrefixStore(f"nissa/replicas/{channel.title}", self._store)
        cohort, rank = channel.cohort, torch.distributed.get_rank()
        if rank != cohort.ranks[0]:
            return Follower(store, cohort.ranks, rank, channel.on_result)
        presumed = cohort.source is Source.PRESUMED
        return Leader(store, cohort.ranks, rank, channel.on_result, presumed=presumed, data=cohort.data)

    def _guarded(self, title: str, call: "Callable[[ReplicaExchange], None]") -> None:
        exchange = self._exchanges[title]
        if exchange is None:
            return
        try:
            call(exchange)
        except Exception as error:  # noqa: BLE001 - a lost store must not end the comparison of other groups
            self._exchanges[title] = None
            self._fail(title, error)

    def _fail(self, title: str, error: Exception) -> None:
        channel = self._channels[title]
        if self._until is not None:  # at the end, the store may be gone already
            return
        if not self._logged:
            self._logged = True
            _logger.warning(
                "Weights are not compared between ranks any more, because the store of the process group failed (%s: %s). Training "
                "is not affected.",
                type(error).__name__,
                error,
            )
        channel.on_result(_lost(channel, None, "failed"))


def _lost(channel: Channel, summary: Summary | None, outcome: str) -> Comparison:
    step, at = (-1, 0) if summary is None else (summary.step, summary.at)
    leads = channel.cohort.ranks[0] == _rank()
    return Comparison(step=step, ranks=channel.cohort.ranks, at=at, outcome=outcome, leads=leads)


def _rank() -> int | None:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else None


def _range(cohort: Cohort) -> str:
    return f"{cohort.ranks[0]}-{cohort.ranks[-1]}-{len(cohort.ranks)}-{crc32(repr(cohort.ranks).encode()):08x}"
