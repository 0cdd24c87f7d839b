"""Findings of the checks, and their severity levels."""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Level(IntEnum):
    """Severity of a finding, in ascending order."""

    OK = 0
    """The check passed."""

    NOTE = 1
    """Information that requires no action."""

    WARNING = 2
    """Telemetry works, but a setting may not be intended."""

    ERROR = 3
    """All or part of the telemetry would be lost."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of a check.

    Args:
        check: Short name of the check.
        level: Severity.
        found: Description of the state.
        advice: Recommended action; empty if none is required.
        signals: Affected signals, such as ``traces``; empty if the finding is independent of the signal.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    signals: tuple[str, ...] = ()


def merged_by_signal(results: "Iterable[CheckResult]") -> list[CheckResult]:
    """Merge findings that differ only in their signals."""
    signals: dict[CheckResult, list[str]] = {}
    for result in results:
        signals.setdefault(replace(result, signals=()), []).extend(result.signals)
    return [replace(result, signals=tuple(dict.fromkeys(names))) for result, names in signals.items()]
