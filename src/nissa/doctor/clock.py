"""Whether our clock agrees with the collector's: telemetry is stamped here, and looked at by the clock there."""

from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from nissa.doctor.finding import Finding, Level

CHECK: Final = "clock"
TOLERATED: Final = 2.0
"""Seconds; the header that is compared has no fractions, and an answer takes its time."""
TOO_FAR: Final = 60.0
"""Seconds from which on what is looked at as current is not."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server said that the time is.

    Args:
        who: Which server.
        date: Its ``Date`` header.
        at: Our wall clock then, seconds since the Unix epoch.
        seconds: How long its answer took: the reading is uncertain by half of it.
    """

    who: str
    date: str
    at: float
    seconds: float

    @property
    def skew(self) -> float | None:
        """How far its clock is ahead of ours, seconds; negative where ours is. None where it says nothing useful."""
        try:
            # The header is cut to whole seconds: on average it is half of one behind.
            return parsedate_to_datetime(self.date).timestamp() + 0.5 - self.at
        except (TypeError, ValueError):
            return None


def compare(readings: Iterable[Reading]) -> list[Finding]:
    """Return a finding for each server that says the time, or the one that none does."""
    known = [(reading, skew) for reading in readings if (skew := reading.skew) is not None]
    if not known:
        found = "The collector's clock is not known: gRPC says no time, and nothing answered over HTTP."
        return [
            Finding(
                CHECK, Level.NOTE, found, "See that both machines keep their clocks by NTP, or name a --health URL."
            )
        ]
    return [_judge(reading, skew) for reading, skew in known]


def _judge(reading: Reading, skew: float) -> Finding:
    if abs(skew) <= TOLERATED + reading.seconds / 2:
        return Finding(CHECK, Level.OK, f"The clock of {reading.who} agrees with ours, within {TOLERATED:g} s.")
    ahead = "ahead of" if skew > 0 else "behind"
    return Finding(
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
