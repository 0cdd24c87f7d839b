"""Write the HTML report of a run's folder."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from nissa.errors import ConfigurationError
from nissa.journal.regular_file import open_regular
from nissa.printable import printable, printable_name
from nissa.recordings import read
from nissa.report.findings_table import findings_section, narratives_section
from nissa.report.gradients import gradients
from nissa.report.learning import learning, pace
from nissa.report.logged import logged, run_config
from nissa.report.page import page
from nissa.report.panels import PageSection
from nissa.report.run_summary import RunSummary
from nissa.report.seeds import blueprints, seeds
from nissa.report.steps import backward_values, step_phases

NAME: Final = "report.html"
"""Default file name of a report, in the run's folder."""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """Summary of a written report.

    Args:
        path: Path of the report.
        bytes: Size of the report.
        run_id: Id of the run.
        status: ``completed``, ``failed`` or ``open``.
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
    """Return the sections of a report, in display order."""
    everything = (
        _learning,
        logged,
        seeds,
        blueprints,
        findings_section,
        gradients,
        _pace,
        narratives_section,
        run_config,
    )
    return [make(run) for make in everything]


def _learning(run: RunSummary) -> PageSection:
    section = learning(run)
    return replace(section, panels=[*section.panels, *backward_values(run)])


def _pace(run: RunSummary) -> PageSection:
    section = pace(run)
    return replace(section, panels=[step_phases(run), *section.panels])


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
