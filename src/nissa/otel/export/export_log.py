"""Record of what became of exported items: counted per signal and outcome, logged once per cause and once when it is over."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nissa.journal import Signal

_logger = logging.getLogger("nissa")

DELIVERED: Final = "delivered"
REFUSED: Final = "refused"
LOST: Final = "lost"

ITEMS: Final = {"traces": "spans", "metrics": "metric points", "logs": "log records"}
"""Name of the items of each signal."""

_NO_ANSWER: Final = "no answer"
_REFUSES: Final = "refuses"
_FAILURES: Final = (_NO_ANSWER, _REFUSES)
"""First words of the causes that a delivery ends."""
_LATE: Final = "not delivered in time"

_UNREACHABLE: Final = (
    "Telemetry does not reach the collector at %s (%s). Training goes on; telemetry is kept in %s, and this run or a later "
    "one sends it when the collector answers. Is the collector up? `make stack` starts one."
)
_UNDELIVERED: Final = (
    "Not delivered to the collector at %s %s: %s. They are kept in %s, and a later run with the same destination sends "
    "them, or `nissa replay`. Is the collector up? `make stack` starts one."
)
_KEPT: Final = (
    "The collector at %s refuses %s (%s). Training goes on; telemetry is kept in %s, and this run, a later one with the same "
    "destination, or `nissa replay` sends it. Check OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL and _HEADERS. If the receiver "
    "takes no %s, set OTEL_%s_EXPORTER=none."
)
_REFUSED: Final = (
    "The collector at %s refuses %s (%s). Training goes on; refused telemetry is lost. See the collector's log, and check "
    "OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL and _HEADERS."
)


class ExportLog:
    """Counts items, and logs changes of state.

    All methods that log are called on the export thread; counts may be read from any thread.

    Args:
        destinations: Endpoint per signal, without credentials.
        folder: Where undelivered telemetry is kept, for messages.
    """

    def __init__(self, destinations: Mapping[str, str], folder: str) -> None:
        self._destinations = destinations
        self._folder = folder
        self._counts: Counter[tuple[str, str]] = Counter()
        self._failing: set[str] = set()
        self._logged: set[str] = set()
        self._unwritable = False
        self._pid = os.getpid()

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Items by signal and outcome: delivered, refused, lost."""
        return Counter(self._counts)

    @property
    def missing(self) -> int:
        """Number of items so far that were refused or lost."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome != DELIVERED)

    @property
    def healthy(self) -> bool:
        """Whether nothing was refused or lost, and the journal can be written."""
        return not self._unwritable and not self.missing

    def delivered(self, signal: str, items: int, *, rejected: int = 0, reason: str = "") -> None:
        """Record that a request was accepted, apart from ``rejected`` items of it."""
        self._counts[signal, DELIVERED] += items - rejected
        if rejected:
            self.refused(signal, rejected, reason)
        if signal not in self._failing:
            return
        self._failing.discard(signal)
        over = {cause for cause in self._logged if cause.startswith(_FAILURES)}
        if over and not self._failing:
            self._logged -= over
            _logger.warning("The collector at %s answers again; what was kept is sent now.", self._destinations[signal])

    def refused(self, signal: str, items: int, reason: str) -> None:
        """Record that items were refused for good."""
        self._counts[signal, REFUSED] += items
        where, why = self._destinations[signal], reason or "no reason given"
        self._once(f"refused at {where}: {why}", _REFUSED, where, ITEMS[signal], why)

    def failed(self, signal: str, reason: str, *, refused: bool = False) -> None:
        """Record that a request failed and will be sent again.

        Args:
            signal: Its signal.
            reason: Why it failed.
            refused: Whether the receiver answered that it takes no such request, because of a credential or a path.
        """
        self._failing.add(signal)
        where = self._destinations[signal]
        if refused:
            what, why = ITEMS[signal], reason or "no reason given"
            self._once(f"{_REFUSES} {where}: {why}", _KEPT, where, what, why, self._folder, what, signal.upper())
            return
        self._once(_NO_ANSWER, _UNREACHABLE, where, reason or "no answer so far", self._folder)

    def lost(self, signal: str, items: int, reason: str) -> None:
        """Record that items will never be delivered."""
        self._counts[signal, LOST] += items
        self._once(f"lost {signal} {reason.partition(':')[0]}", "Lost %d %s: %s.", items, ITEMS[signal], reason)

    def unwritable(self, reason: str) -> None:
        """Record that the journal cannot be written now."""
        self._unwritable = True
        self._once("unwritable", "Telemetry cannot be written: %s. It is kept in memory until it can.", reason)

    def written(self) -> None:
        """Record that the journal can be written."""
        if self._unwritable:
            self._unwritable = False
            self._logged.discard("unwritable")
            _logger.info("Telemetry is written to %s again.", self._folder)

    def late(self, waiting: "Mapping[Signal, int]", seconds: float) -> None:
        """Log that a flush did not finish in time; called on the thread that waited for it."""
        self._undelivered(waiting, f"within {seconds:.1f} s")

    def ended(self, waiting: "Mapping[Signal, int]") -> None:
        """Log at the end what was not delivered."""
        self._undelivered(waiting, "before the end")

    def _undelivered(self, waiting: "Mapping[Signal, int]", when: str) -> None:
        counts = {signal: count for signal, count in waiting.items() if count}
        if not counts:
            return
        where = ", ".join(dict.fromkeys(self._destinations[signal] for signal in counts))
        # The warning that the collector is unreachable or refuses says the same.
        known = any(cause.startswith((*_FAILURES, _LATE)) for cause in self._logged)
        level = logging.INFO if known else logging.WARNING
        self._logged.add(_LATE)
        items = tally({ITEMS[signal]: count for signal, count in counts.items()})
        _logger.log(level, _UNDELIVERED, where, when, items, self._folder)

    def _once(self, cause: str, message: str, *args: object) -> None:
        # A forked child exports to the same destination as its parent, which logs what is wrong with it.
        level = logging.DEBUG if cause in self._logged or os.getpid() != self._pid else logging.WARNING
        self._logged.add(cause)
        _logger.log(level, message, *args)


def tally(counts: Mapping[str, int]) -> str:
    """Return counts in words.

    Example:
        >>> tally({"spans": 1200, "log records": 0, "metric points": 5})
        '1,200 spans and 5 metric points'
    """
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:]))) or "no items that could be counted"
