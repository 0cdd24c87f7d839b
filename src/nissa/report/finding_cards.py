"""Section with the findings of a run, as cards."""

from typing import Final

from nissa.charts.text import ABSENT
from nissa.report.panels import FindingCard, PageSection
from nissa.report.recorded_findings import ERROR, WARNING, RecordedFinding
from nissa.report.run_summary import RunSummary, clock_time
from nissa.semconv import metrics as metric

MOST_CARDS: Final = 500
"""Maximum number of findings; beyond it, the latest are shown."""

MOST_OPEN: Final = 6
"""Number of findings that are shown before the reader asks for more."""


def findings_section(run: RunSummary) -> PageSection:
    """Return the section of findings: those that held at the end first, remarks last, the latest first."""
    if not run.findings:
        return PageSection(key="findings", title="Findings", empty=_nothing(run))
    latest = sorted(run.findings[-MOST_CARDS:], key=_urgency)
    left_out = len(run.findings) - len(latest)
    note = f"The latest {MOST_CARDS}; {left_out} before them are left out." if left_out else ""
    cards = [_card(run, each) for each in reversed(latest)]
    return PageSection(key="findings", title="Findings", note=note, findings=cards)


def _urgency(finding: RecordedFinding) -> tuple[bool, bool, int]:
    return finding.lasting and finding.until is None, finding.severity >= WARNING, finding.time


def _nothing(run: RunSummary) -> str:
    if run.narratives or run.streams(metric.STEP):
        return "No rule raised a finding."
    return "Nothing could be judged: call run.watch(model, optimizer), and run.validate(...)."


def _card(run: RunSummary, finding: RecordedFinding) -> FindingCard:
    at = f"step {finding.step:,}" if finding.step is not None else ""
    at = at or (f"epoch {finding.epoch}" if finding.epoch is not None else "")
    if finding.until is not None:
        until = f"until {clock_time(finding.until)}"
    else:
        until = "still up at the end" if finding.lasting else ""
    return FindingCard(
        name=finding.name,
        when=", ".join(part for part in (at, clock_time(finding.time)) if part),
        where=run.names.name(finding.series_key),
        seen=finding.sentence or ABSENT,
        layers=finding.layers,
        more_layers=max(finding.layer_count - len(finding.layers), 0),
        advice=finding.advice,
        evidence=finding.evidence,
        until=until,
        tone="bad" if finding.severity >= ERROR else "warning" if finding.severity >= WARNING else "",
        group=run.names.group(finding.series_key.env),
    )
