"""Sections with the tables of findings and narratives."""

from typing import Final

from nissa.charts.text import ABSENT, number
from nissa.report.panels import PageSection, Table, TableRow, percentage
from nissa.report.recorded_findings import ERROR, WARNING, RecordedFinding, RecordedNarrative
from nissa.report.run_summary import RunSummary, clock_time

MOST_ROWS: Final = 500
"""Maximum number of rows in a table; beyond it, the latest are shown."""


def findings_section(run: RunSummary) -> PageSection:
    """Return the section of findings."""
    if not run.findings:
        why = (
            "Nothing was found that deserved attention." if run.narratives else "Nothing was diagnosed: no validate()."
        )
        return PageSection(key="findings", title="Findings", empty=why)
    rows = tuple(_finding(run, each) for each in run.findings[-MOST_ROWS:])
    head = ("when", "where", "finding", "what was seen", "evidence", "what to do", "until")
    return PageSection(key="findings", title="Findings", tables=[Table(_caption("Findings", run.findings), head, rows)])


def narratives_section(run: RunSummary) -> PageSection:
    """Return the section of narratives, one row per validation."""
    if not run.narratives:
        why = "No narrative was written: there was no run.validate(...)."
        return PageSection(key="narrative", title="Narrative", empty=why)
    rows = tuple(
        TableRow(
            (
                ABSENT if each.epoch is None else str(each.epoch),
                clock_time(each.time),
                run.names.name(each.series_key) or ABSENT,
                each.text,
                number(each.loss),
                percentage(each.accuracy),
            ),
            run.names.group(each.series_key.env),
        )
        for each in run.narratives[-MOST_ROWS:]
    )
    head = ("epoch", "time", "where", "what training looked like", "loss", "accuracy")
    caption = _caption("Narratives of all validations", run.narratives)
    return PageSection(key="narrative", title="Narrative", tables=[Table(caption, head, rows, numeric=2)])


def _caption(what: str, everything: "list[RecordedFinding] | list[RecordedNarrative]") -> str:
    left_out = len(everything) - MOST_ROWS
    return f"{what}, the latest {MOST_ROWS}; {left_out} before them are left out" if left_out > 0 else what


def _finding(run: RunSummary, finding: RecordedFinding) -> TableRow:
    at = f"step {finding.step:,}" if finding.step is not None else ""
    at = at or (f"epoch {finding.epoch}" if finding.epoch is not None else "")
    if finding.until is not None:
        until = clock_time(finding.until)
    else:
        until = "still up at the end" if finding.lasting else ABSENT
    return TableRow(
        (
            f"{clock_time(finding.time)} {at}".strip(),
            run.names.name(finding.series_key) or ABSENT,
            finding.name,
            finding.sentence or ABSENT,
            finding.evidence or ABSENT,
            finding.advice or ABSENT,
            until,
        ),
        run.names.group(finding.series_key.env),
        "bad" if finding.severity >= ERROR else "warning" if finding.severity >= WARNING else "",
    )
