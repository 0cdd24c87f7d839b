"""Output of ``nissa doctor``: a terminal table or JSON."""

from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape
from rich.table import Column, Table

from nissa.doctor.check_result import CheckResult, Level

if TYPE_CHECKING:
    from nissa.doctor.checks import DoctorReport

_STYLES: Final = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "bold red"}


def table(report: "DoctorReport") -> Table:
    """Return the findings as a terminal table."""
    counts = {level: sum(each.level is level for each in report.findings) for level in (Level.ERROR, Level.WARNING)}
    caption = ", ".join(f"{count} {level.name.lower()}{'s' * (count != 1)}" for level, count in counts.items())
    rows = Table(
        Column("", no_wrap=True),
        Column("check", no_wrap=True),
        "what was found, and what to do",
        caption=caption,
        show_lines=False,
    )
    for result in report.findings:
        rows.add_row(f"[{_STYLES[result.level]}]{result.level.name.lower()}[/]", result.check, escape(_text(result)))
    return rows


def _text(result: CheckResult) -> str:
    caption = ", ".join(result.signals)
    text = f"{caption}: {result.found}" if caption else result.found
    return f"{text}\n-> {result.advice}" if result.advice else text


def as_json(report: "DoctorReport") -> dict[str, Any]:
    """Return the report as data that JSON can represent."""
    return {
        "healthy": report.healthy,
        "findings": [
            {
                "check": each.check,
                "level": each.level.name.lower(),
                "found": each.found,
                "advice": each.advice,
                "signals": list(each.signals),
            }
            for each in report.findings
        ],
        "settings": report.settings,
    }
