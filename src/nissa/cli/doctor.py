"""Command ``nissa doctor``."""

from typing import Annotated, Final

import typer

from nissa.cli.output import ExitCode, Json, console, print_json

EXAMPLES: Final = (
    ("nissa doctor", "check this machine and the endpoints in OTEL_* variables"),
    ("nissa doctor --endpoint http://localhost:4317", "check a collector before you configure it"),
    ("nissa doctor --json", "for a job's start script; exit code 1 means errors"),
)


def doctor(
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OTLP endpoint for all signals, instead of those in OTEL_* variables."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="PROTOCOL",
            help="With --endpoint: grpc, http/protobuf or http/json; default from OTEL_* variables, else grpc.",
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="URL of the collector's health check; default port 13133 of the endpoint's host."
        ),
    ] = None,
    counters: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="URL of the collector's own metrics; default port 8888 of the endpoint's host."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check whether telemetry would arrive, and print how to fix problems.

    Checks versions, OTEL_* variables, every endpoint (with an empty export), its certificate, its clock and the collector
    behind it, whether metrics can join the SDK's, files and GPUs. Only empty requests are sent, and no secrets are
    printed. Takes a few seconds.

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
