"""Clock check: compare the local clock with the collector's ``Date`` header.

Timestamps are set on this machine. If the clocks differ, dashboards query the wrong time range.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from nissa.doctor.check_result import CheckResult, Level

CHECK: Final = "clock"
TOLERATED: Final = 2.0
"""Accepted difference, seconds; the ``Date`` header has no fractions, and the response has latency."""
TOO_FAR: Final = 60.0
"""Difference that is an error, seconds; dashboards of current data would miss the telemetry."""


@dataclass(frozen=True, slots=True)
class Reading:
    """``Date`` header of one server, with the local time at which it was read.

    Args:
        who: Name of the server, such as ``host:port``.
        date: ``Date`` header of the response.
        at: Local wall clock at that moment, seconds since the Unix epoch.
        seconds: Duration of the request; the reading is uncertain by half of it.
    """

    who: str
    date: str
    at: float
    seconds: float

    @property
    def skew(self) -> float | None:
        """Seconds that the server's clock is ahead of the local clock; None if the header cannot be parsed."""
        try:
            # The header is truncated to whole seconds, so it is half a second behind on average.
            return parsedate_to_datetime(self.date).timestamp() + 0.5 - self.at
        except (TypeError, ValueError):
            return None


def compare(readings: Iterable[Reading]) -> list[CheckResult]:
    """Return one finding per server with a valid ``Date`` header, or a single note if no server sent one."""
    known = [(reading, skew) for reading in readings if (skew := reading.skew) is not None]
    if not known:
        found = "The collector's clock is not known: gRPC responses have no time, and no HTTP request was answered."
        return [
            CheckResult(
                CHECK, Level.NOTE, found, "See that both machines keep their clocks by NTP, or name a --health URL."
            )
        ]
    return [_judge(reading, skew) for reading, skew in known]


def _judge(reading: Reading, skew: float) -> CheckResult:
    if abs(skew) <= TOLERATED + reading.seconds / 2:
        return CheckResult(CHECK, Level.OK, f"The clock of {reading.who} agrees with ours, within {TOLERATED:g} s.")
    ahead = "ahead of" if skew > 0 else "behind"
    return CheckResult(
        CHECK,
        Level.ERROR if abs(skew) >= TOO_FAR else Level.WARNING,
        f"The clock of {reading.who} is {_duration(abs(skew))} {ahead} ours.",
        "Set the wrong one by NTP: telemetry carries our time, so that a dashboard looks for it in the wrong place.",
    )


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
