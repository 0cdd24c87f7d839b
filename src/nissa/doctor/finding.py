"""What a check says."""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Level(IntEnum):
    """How bad a finding is, in rising order."""

    OK = 0
    """It was checked and is as it should be."""

    NOTE = 1
    """It is worth knowing, and needs nothing."""

    WARNING = 2
    """Telemetry works, and something about it is perhaps not as it was meant."""

    ERROR = 3
    """Telemetry, or part of it, would not arrive."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of one check.

    Args:
        check: Which check it was, in a word or two.
        level: How bad it is.
        found: What was found.
        advice: What to do about it; empty where there is nothing to do.
        signals: The signals that it is about; none where it is about all or none of them.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    signals: tuple[str, ...] = ()


def united(findings: "Iterable[Finding]") -> list[Finding]:
    """Return the findings, those that differ in their signals alone as one."""
    signals: dict[Finding, list[str]] = {}
    for finding in findings:
        signals.setdefault(replace(finding, signals=()), []).extend(finding.signals)
    return [replace(finding, signals=tuple(dict.fromkeys(names))) for finding, names in signals.items()]
