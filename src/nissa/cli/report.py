"""Command ``nissa report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from nissa.cli.output import Json, print_json
from nissa.printable import printable

if TYPE_CHECKING:
    from nissa.report import WrittenReport

MOST_NAMED: Final = 20
"""Maximum number of unreadable parts that are named; ``--json`` lists all."""

EXAMPLES: Final = (
    ("nissa report", "write the page of the newest run in nissa-runs"),
    ("nissa report nissa-runs/20261128-011903-9a0885 --open", "write the page of this run and open it"),
    ("nissa report mine --output mine.html --json", "print its path and contents for a script"),
)


def report(
    *,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The run's folder, or a folder of runs, whose newest run is used."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output file; default report.html in the run's folder.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Json = False,
) -> None:
    """Write the telemetry of a run as one HTML page that needs no server and no network.

    The page shows findings, losses and logged values, throughput and step phases, clipping and learning rates, the run
    with its configuration and memory, and gradients by parameter; also the lives of seeds, if the run has some. Its source
    are the OTLP JSON files and the spool of a run. The run may be in progress, finished or killed.
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
        typer.echo("nissa: no browser could be started; open the file manually.", err=True)


def _print_summary(written: "WrittenReport") -> None:
    typer.echo(printable(written.path))
    typer.echo(
        f"  run {written.run_id}, {written.status}: {written.points:,} points, {written.seeds} seeds, "
        f"{written.findings} findings; {written.bytes / 1e6:.1f} MB"
    )
    if written.damaged:
        more = f" and {len(written.damaged) - MOST_NAMED:,} more" if len(written.damaged) > MOST_NAMED else ""
        named = ", ".join(written.damaged[:MOST_NAMED])
        typer.echo(f"nissa: skipped unreadable parts: {named}{more}", err=True)
