"""Command ``nissa report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from nissa.cli.output import Json, print_json

if TYPE_CHECKING:
    from nissa.report import Written

EXAMPLES: Final = (
    ("nissa report", "of the newest run in nissa-runs"),
    ("nissa report nissa-runs/20261128-011903-9a0885 --open", "of this run, and show it"),
    ("nissa report mine --output mine.html --json", "say where it is and what is in it, for a script"),
)


def report(
    *,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The run's folder, or a folder of runs, of which the newest is taken."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to write; report.html in the run's folder if not given.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: Json = False,
) -> None:
    """Write what a run recorded as one page that needs no server and no network.

    Loss and accuracy, findings, the lives of seeds, blueprints, gradients by parameter and their distributions, and the
    narrative of each epoch, from the OTLP JSON files of a run that had no exporter: while it goes on, after it ended,
    and after it was killed.
    """
    from nissa.config.loading import load  # noqa: PLC0415 - help stays quick without it
    from nissa.recordings import find_run  # noqa: PLC0415
    from nissa.report import write_report  # noqa: PLC0415

    run = find_run(folder or load().files.directory)
    written = write_report(run, output)
    if json:
        print_json(written.to_dict())
    else:
        _print_summary(written)
    if show and typer.launch(Path(written.path).resolve().as_uri()) != 0:
        typer.echo("nissa: no browser could be started; open the file yourself.", err=True)


def _print_summary(written: "Written") -> None:
    typer.echo(written.path)
    typer.echo(
        f"  run {written.run_id}, {written.status}: {written.points:,} points, {written.seeds} seeds, "
        f"{written.findings} findings; {written.bytes / 1e6:.1f} MB"
    )
    if written.damaged:
        typer.echo(f"nissa: left out what could not be read: {', '.join(written.damaged)}", err=True)
