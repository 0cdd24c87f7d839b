"""Section with the table of narratives."""

from typing import Final

from nissa.charts.text import ABSENT, number
from nissa.report.panels import PageSection, Table, TableRow, percentage
from nissa.report.run_summary import RunSummary, clock_time

MOST_ROWS: Final = 500
"""Maximum number of rows; beyond it, the latest are shown."""


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
    left_out = len(run.narratives) - MOST_ROWS
    caption = "Narratives of all validations"
    caption += f", the latest {MOST_ROWS}; {left_out} before them are left out" if left_out > 0 else ""
    return PageSection(key="narrative", title="Narrative", tables=[Table(caption, head, rows, numeric=2)])
