"""Closing lines of the demo: outcome, location of the telemetry, and suggestions for further inspection."""

from pathlib import Path
from typing import TYPE_CHECKING

from nissa.backends.console import ABSENT
from nissa.demo.results import INTERRUPTED
from nissa.journal import spools

if TYPE_CHECKING:
    from nissa.demo.results import DemoReport, EnvironmentReport, SeedReport

FILES = ("traces.jsonl", "metrics.jsonl", "logs.jsonl")
"""Telemetry files of a run directory."""


def closing(report: "DemoReport") -> list[str]:
    """Return the closing lines of a demo."""
    return [
        "",
        *(_environment(environment) for environment in report.environments),
        _seeds(report),
        "",
        *_where(report),
        *_page(report),
        "",
        "What to look at next:",
        *(f"  {number}. {line}" for number, line in enumerate(_worth_a_look(report), 1)),
    ]


def _environment(environment: "EnvironmentReport") -> str:
    before = environment.baseline_accuracy
    grew = ABSENT if before is None else f"{before:.1%} without seeds -> {environment.final_accuracy:.1%} with seeds"
    return f"environment {environment.env_id}: accuracy {grew}"


def _seeds(report: "DemoReport") -> str:
    counts = {outcome: len(report.with_outcome(outcome)) for outcome in ("fossilized", "culled", INTERRUPTED)}
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    return f"{len(report.seeds)} seeds in {report.seconds:.0f} s: {outcomes or 'none germinated'}"


def _where(report: "DemoReport") -> list[str]:
    if report.directory is None:
        return [f"The telemetry of run {report.run_id} was sent to: {report.destination}"]
    return [
        f"The telemetry of run {report.run_id} is in:",
        *(f"  {path}" for path in _recorded(Path(report.directory))),
    ]


def _recorded(directory: Path) -> list[Path]:
    """Return the files and spools of a run; the usual files if there are none yet."""
    usual = [directory / name for name in FILES]
    return [*filter(Path.is_file, usual), *spools(directory)] or usual


def _page(report: "DemoReport") -> list[str]:
    if report.page is not None:
        return ["", f"Report as one HTML page: {report.page}"]
    return [] if report.directory is None else ["", f"No report was written: {report.no_page}"]


def _worth_a_look(report: "DemoReport") -> list[str]:
    kept, refused = report.with_outcome("fossilized"), report.with_outcome("culled")
    return [
        f"A seed that was kept: {_life(kept[0])}" if kept else "No seed was kept: compare their gates.",
        f"A seed that was removed: {_life(refused[-1])}, {refused[-1].reason}" if refused else "No seed was culled.",
        _onward(report.directory),
    ]


def _life(seed: "SeedReport") -> str:
    change = ABSENT if seed.improvement is None else f"{seed.improvement * 100:+.2f} points"
    return f"{seed.seed_id} ({seed.blueprint} in {seed.slot}, {change}), trace {seed.trace_id}"


def _onward(directory: str | None) -> str:
    if directory is None:
        return (
            "Gradients when a seed is added: nissa.gradient.norm and nissa.gradient.magnitude, by nissa.parameter.name."
        )
    logs = Path(directory) / "logs.jsonl"
    if not logs.is_file() and spools(Path(directory)):  # compressed protobuf
        return f"Narrative of each epoch: nissa report {directory} --open"
    return f"Narrative of each epoch: grep -o '\"nissa.narrative\",[^}}]*' {logs}"
