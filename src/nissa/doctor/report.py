"""Output of ``nissa doctor``: a terminal table or JSON."""

from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape
from rich.table import Column, Table

from nissa.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from nissa.doctor.examination import Report

_STYLES: Final = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "bold red"}


def table(report: "Report") -> Table:
    """Return the findings as a terminal table."""
    counts = {level: sum(each.level is level for each in report.findings) for level in (Level.ERROR, Level.WARNING)}
    told = ", ".join(f"{count} {level.name.lower()}{'s' * (count != 1)}" for level, count in counts.items())
    rows = Table(
        Column("", no_wrap=True),
        Column("check", no_wrap=True),
        "what was found, and what to do",
        caption=told,
        show_lines=False,
    )
    for finding in report.findings:
        rows.add_row(
            f"[{_STYLES[finding.level]}]{finding.level.name.lower()}[/]", finding.check, escape(_text(finding))
        )
    return rows


def _text(finding: Finding) -> str:
    told = ", ".join(finding.signals)
    text = f"{told}: {finding.found}" if told else finding.found
    return f"{text}\n-> {finding.advice}" if finding.advice else text


def as_json(report: "Report") -> dict[str, Any]:
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
