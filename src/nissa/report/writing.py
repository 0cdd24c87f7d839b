"""From a run's folder to a report."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from nissa.errors import ConfigurationError
from nissa.recordings import read
from nissa.report.facts import Facts
from nissa.report.gradients import gradients
from nissa.report.learning import learning
from nissa.report.page import page
from nissa.report.seeds import blueprints, seeds
from nissa.report.telling import found, told

NAME: Final = "report.html"
"""What a report is called where no other name is asked for; it lies in the run's folder."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Args:
        path: The report.
        bytes: Its size.
        run_id: The run.
        status: ``completed``, ``failed`` or ``open``.
        points: Data points of all metrics that were read.
        damaged: Lines that could not be read, as ``file:line``.
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
        """Return it as data that JSON can hold."""
        return asdict(self)


def write_report(folder: Path, output: Path | None = None) -> Written:
    """Write the report of a run, and say what is in it.

    Args:
        folder: Where the run's OTLP JSON lines are.
        output: The file to write; ``report.html`` in the folder if None.

    Raises:
        ConfigurationError: There is no telemetry in the folder, the file cannot be written, or plotly is missing.
    """
    recording = read(folder)
    facts = Facts(recording, folder.resolve().name)
    sections = [learning(facts), found(facts), seeds(facts), blueprints(facts), gradients(facts), told(facts)]
    text = page(facts, sections)
    path = output or folder / NAME
    _write(path, text)
    return Written(
        path=str(path),
        bytes=len(text.encode()),
        run_id=facts.run_id,
        status=facts.ending.word,
        spans=len(recording.spans),
        points=recording.point_count,
        logs=len(recording.logs),
        seeds=len(facts.lives),
        findings=len(facts.findings),
        narratives=len(facts.narratives),
        damaged=recording.damaged,
    )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write the report to {path}: {error.strerror}. Choose another --output."
        ) from error
