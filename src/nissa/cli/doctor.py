"""Command ``nissa doctor``."""

from typing import Annotated, Final

import typer

from nissa.cli.output import ExitCode, Json, console, print_json

EXAMPLES: Final = (
    ("nissa doctor", "check this machine, and where OTEL_* say that telemetry goes"),
    ("nissa doctor --endpoint http://localhost:4317", "check a collector before you name it"),
    ("nissa doctor --json", "for a job's start script; the exit code says whether to go on"),
)


def doctor(
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Check this OTLP endpoint for all signals, instead of those that OTEL_* name."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="PROTOCOL", help="With --endpoint: grpc or http/protobuf; else what OTEL_* say, else grpc."
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="URL of the collector's health check; port 13133 of the endpoint's host if not given."
        ),
    ] = None,
    counters: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="URL of the collector's own metrics; port 8888 of the endpoint's host if not given."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check whether telemetry would arrive, and say what to do.

    Looks at versions, at what OTEL_* variables ask for, at every endpoint (by an export that is empty), at its
    certificate, its clock and the collector behind it, at whether metrics can join the SDK's, and at files and GPUs.
    Nothing is sent but empty requests, and nothing secret is printed. It takes a few seconds.

    Exit code 1 means that at least one finding is an error.
    """
    from nissa.doctor.checks import run_checks  # noqa: PLC0415 - help stays quick without it
    from nissa.doctor.rendering import as_json, table  # noqa: PLC0415

    report = run_checks(endpoint=endpoint, protocol=protocol, health=health, counters=counters)
    if json:
        print_json(as_json(report))
    else:
        console().print(table(report))
    if not report.healthy:
        raise typer.Exit(ExitCode.FINDINGS)
