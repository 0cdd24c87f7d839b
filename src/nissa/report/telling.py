"""Sections with the tables of findings and narratives."""

from typing import Final

from nissa.charts.text import ABSENT, number
from nissa.report.facts import Facts, clock_time
from nissa.report.panels import Row, Section, Table, percentage
from nissa.report.told import ERROR, WARNING, Finding, Narrative

MOST_ROWS: Final = 500
"""Maximum number of rows in a table; beyond it, the latest are shown."""


def found(facts: Facts) -> Section:
    """Return the section of findings."""
    if not facts.findings:
        why = (
            "Nothing was found that deserved attention."
            if facts.narratives
            else "Nothing was diagnosed: no validate()."
        )
        return Section(key="findings", title="Findings", empty=why)
    rows = tuple(_finding(facts, each) for each in facts.findings[-MOST_ROWS:])
    head = ("when", "where", "finding", "what was seen", "what to do", "until")
    return Section(key="findings", title="Findings", tables=[Table(_caption("Findings", facts.findings), head, rows)])


def told(facts: Facts) -> Section:
    """Return the section of narratives, one row per validation."""
    if not facts.narratives:
        why = "No narrative was written: there was no run.validate(...)."
        return Section(key="narrative", title="Narrative", empty=why)
    rows = tuple(
        Row(
            (
                ABSENT if each.epoch is None else str(each.epoch),
                clock_time(each.time),
                facts.places.name(each.place) or ABSENT,
                each.text,
                number(each.loss),
                percentage(each.accuracy),
            ),
            facts.places.group(each.place.env),
        )
        for each in facts.narratives[-MOST_ROWS:]
    )
    head = ("epoch", "time", "where", "what training looked like", "loss", "accuracy")
    caption = _caption("Narratives of all validations", facts.narratives)
    return Section(key="narrative", title="Narrative", tables=[Table(caption, head, rows, numeric=2)])


def _caption(what: str, everything: "list[Finding] | list[Narrative]") -> str:
    left_out = len(everything) - MOST_ROWS
    return f"{what}, the latest {MOST_ROWS}; {left_out} before them are left out" if left_out > 0 else what


def _finding(facts: Facts, finding: Finding) -> Row:
    at = f"step {finding.step:,}" if finding.step is not None else ""
    at = at or (f"epoch {finding.epoch}" if finding.epoch is not None else "")
    if finding.until is not None:
        until = clock_time(finding.until)
    else:
        until = "still up at the end" if finding.lasting else ABSENT
    return Row(
        (
            f"{clock_time(finding.time)} {at}".strip(),
            facts.places.name(finding.place) or ABSENT,
            finding.name,
            finding.sentence or ABSENT,
            finding.advice or ABSENT,
            until,
        ),
        facts.places.group(finding.place.env),
        "bad" if finding.severity >= ERROR else "warning" if finding.severity >= WARNING else "",
    )
