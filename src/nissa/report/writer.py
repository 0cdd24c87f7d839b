"""Write the HTML report of a run's folder."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nissa.errors import ConfigurationError
from nissa.journal.regular_file import open_regular
from nissa.printable import printable, printable_name
from nissa.recordings import read
from nissa.report.finding_cards import findings_section
from nissa.report.gradients import gradients
from nissa.report.learning import cost, learning, optimizer
from nissa.report.logged import scalars, throughput
from nissa.report.narratives import narratives_section
from nissa.report.page import page
from nissa.report.panels import PageSection
from nissa.report.program import program
from nissa.report.run_summary import RunSummary
from nissa.report.seeds import blueprints, seeds
from nissa.report.steps import backward_values, step_phases

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = "report.html"
"""Default file name of a report, in the run's folder."""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """Summary of a written report.

    Args:
        path: Path of the report.
        bytes: Size of the report.
        run_id: Id of the run.
        status: Outcome of the run; see `RunOutcome`.
        points: Number of data points read, of all metrics.
        damaged: Lines that could not be parsed, as ``file:line``.
    """

    path: str
    bytes: int
    run_id: str
    status: str
    spans: int
    points: int
    logs: int
    seeds: int
    findings: int
    narratives: int
    damaged: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as data that JSON can represent."""
        return asdict(self)


def write_report(folder: Path, output: Path | None = None) -> WrittenReport:
    """Write the report of a run, and return a summary.

    Args:
        folder: Folder of the run, with its OTLP JSON lines.
        output: File to write; ``report.html`` in the folder if None.

    Raises:
        ConfigurationError: The folder contains no telemetry, the file cannot be written, or plotly is not installed.
    """
    recording = read(folder)
    run = RunSummary(recording, printable_name(folder.resolve().name))
    with np.errstate(all="ignore"):  # a recorded value near the largest double overflows in a mean or median
        text = page(run, sections(run))
    path = output or folder / NAME
    _write(path, text, follow=output is not None)
    return WrittenReport(
        path=str(path),
        bytes=len(text.encode()),
        run_id=run.run_id,
        status=run.ending.word,
        spans=len(recording.spans),
        points=recording.point_count,
        logs=len(recording.logs),
        seeds=len(run.timelines),
        findings=len(run.findings),
        narratives=len(run.narratives),
        damaged=recording.damaged,
    )


def sections(run: RunSummary) -> list[PageSection]:
    """Return the sections of a report, in display order; those of seeds only if the run has some."""
    everything: tuple[Callable[[RunSummary], PageSection], ...] = (
        findings_section,
        _learning,
        _speed,
        optimizer,
        program,
        *((seeds, blueprints) if run.timelines else ()),
        gradients,
        narratives_section,
        cost,
    )
    return [make(run) for make in everything]


def _learning(run: RunSummary) -> PageSection:
    loss, accuracy = learning(run)
    return PageSection(key="learning", title="Learning", panels=[loss, *backward_values(run), scalars(run), accuracy])


def _speed(run: RunSummary) -> PageSection:
    return PageSection(key="speed", title="Speed", panels=[throughput(run), step_phases(run)])


def _write(path: Path, text: str, *, follow: bool) -> None:
    """Write the page; in the folder of the run, a link that somebody else has put there is not followed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if follow:
            path.write_text(text, encoding="utf-8")
        else:
            with open(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as file:  # noqa: PTH123 - opened already
                file.write(text)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write the report to {printable(str(path))}: {error.strerror}. Choose another --output."
        ) from error
