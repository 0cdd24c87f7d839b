"""Whether telemetry reaches the collector: told once when it does not, once when it does again, and at the end."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

_logger = logging.getLogger("nissa")

_UNREACHABLE: Final = (
    "Telemetry does not reach the collector at %s (%s). Training goes on; spans and log records are kept and sent again, "
    "metrics of meanwhile are lost. Is the collector up? `make stack` starts one."
)
_REFUSED: Final = (
    "The collector at %s refuses %s (%s). Training goes on; what it refuses is lost. See the collector's log, and check "
    "OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL and _HEADERS."
)
_LATE: Final = (
    "Telemetry was not delivered to the collector at %s within %.1f s (%s): %s wait and are lost if the process ends now. "
    "Training is not affected. Is the collector up? `make stack` starts one."
)


class Reach:
    """Keeps what is known of the way to the collector, and logs what of it is news.

    A way that fails for long, or again and again, is one warning; refusals are another, since their cure differs.

    Attributes:
        lost: How many items of each kind will never arrive.
    """

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._said = Counter[str]()
        self._failing: dict[str, str] = {}
        self._told: set[str] = set()
        self._recovered = False
        self._lock = threading.Lock()

    def failed(self, what: str, endpoint: str, reason: str, *, refused: bool = False) -> None:
        """Note that an export failed for good or for now, and warn of the first of either."""
        with self._lock:
            if not refused:
                self._failing[what] = endpoint
            news = self._news(_REFUSED if refused else _UNREACHABLE)
        level = logging.WARNING if news else logging.DEBUG
        if refused:
            _logger.log(level, _REFUSED, endpoint, what, reason)
        else:
            _logger.log(level, _UNREACHABLE, endpoint, reason)

    def lose(self, what: str, count: int) -> None:
        """Count items that will never arrive."""
        with self._lock:
            self.lost[what] += count

    def succeeded(self, what: str, endpoint: str) -> None:
        """Note that an export arrived; say so where it is the last of those that failed."""
        if what not in self._failing:
            return
        with self._lock:
            self._failing.pop(what, None)
            if self._failing or _UNREACHABLE not in self._told:
                return
            first, self._recovered = not self._recovered, True
            lost = self._unsaid() if first else Counter[str]()
        text = f"{tally(lost)} were lost meanwhile" if lost else "nothing was lost"
        level = logging.DEBUG if not first else logging.WARNING if lost else logging.INFO
        _logger.log(level, "The collector at %s answers again; %s.", endpoint, text)

    def late(self, endpoint: str, seconds: float, reason: str, waiting: Mapping[str, int]) -> None:
        """Say what waits after a flush whose time was up, unless it is known that the way is closed."""
        with self._lock:
            level = logging.WARNING if self._news(_UNREACHABLE) else logging.INFO
        _logger.log(level, _LATE, endpoint, seconds, reason or "no answer so far", tally(waiting))

    def end(self, waiting: Mapping[str, int]) -> None:
        """Say at the end of the process what never arrived; a warning only where the last word was not one."""
        with self._lock:
            lost = self._unsaid() + Counter(waiting)
            level = logging.INFO if self._told and not self._recovered else logging.WARNING
        if lost:
            _logger.log(level, "Telemetry that never reached the collector: %s.", tally(lost))

    def _news(self, kind: str) -> bool:
        new = kind not in self._told
        self._told.add(kind)
        return new

    def _unsaid(self) -> Counter[str]:
        unsaid, self._said = self.lost - self._said, Counter(self.lost)
        return unsaid


def tally(counts: Mapping[str, int]) -> str:
    """Return counts in words.

    Example:
        >>> tally({"spans": 1200, "log records": 0, "metric points": 5})
        '1,200 spans and 5 metric points'
    """
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:]))) or "no items that could be counted"
