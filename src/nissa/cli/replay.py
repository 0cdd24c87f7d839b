"""Command ``nissa replay``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nissa.cli.output import ExitCode, Json, print_json
from nissa.printable import printable

if TYPE_CHECKING:
    from nissa.otel.replay import Replayed

MOST_NAMED: Final = 20
"""Maximum number of lines left out that are named."""

EXAMPLES: Final = (
    ("nissa replay nissa-runs/RUN --endpoint http://localhost:4317", "send a run's telemetry to a collector"),
    ("nissa replay nissa-runs/RUN", "the same, to the endpoints in OTEL_EXPORTER_OTLP_* variables"),
    ("nissa replay nissa-runs/RUN --dry-run", "count the telemetry to send"),
)


def replay(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run, with traces.jsonl and the like, or a spool.")
    ],
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OTLP endpoint for all signals; default from OTEL_EXPORTER_OTLP_* variables."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="PROTOCOL",
            help="With --endpoint: grpc, http/protobuf or http/json; default from OTEL_* variables, else detected.",
        ),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Maximum time to retry if the collector is unreachable or busy."),
    ] = 60.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the telemetry without sending it.")] = False,
    json: Json = False,
) -> None:
    """Send the telemetry in a run's files and spool to a collector, with its original times and ids.

    Headers, certificates and compression come from OTEL_EXPORTER_OTLP_* variables. A run may be sent again, because ids
    and times stay the same. If the last line of a killed process is incomplete, it is skipped and reported.

    Exit code 1 means that other telemetry was not sent; the output names it with the reason.
    """
    from nissa.otel.replay import replay as send  # noqa: PLC0415 - help stays quick without it

    done = send(directory, endpoint=endpoint, protocol=protocol, patience=patience, dry_run=dry_run)
    if json:
        print_json(_plain(done))
    else:
        typer.echo("\n".join(_summary_lines(done)))
    if not done.complete:
        raise typer.Exit(ExitCode.FINDINGS)


def _plain(done: "Replayed") -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415 - help stays quick without it

    return {"complete": done.complete, **asdict(done)}


def _summary_lines(done: "Replayed") -> list[str]:
    from nissa.otel.export.export_log import tally  # noqa: PLC0415 - help stays quick without it

    signals = done.signals.values()
    counts = tally({each.what: each.found if done.dry_run else each.sent for each in signals})
    where = sorted({f"{each.endpoint} ({each.protocol})" for each in signals if each.endpoint})
    ending = "would be sent" if done.dry_run else f"went to {', '.join(where)}"
    missing = [
        f"Not sent: {each.found - each.sent:,} of {each.found:,} {each.what}: {'; '.join(each.reasons)}."
        for each in signals
        if each.sent < each.found and not done.dry_run
    ]
    skipped = [str(each) for each in done.skipped[:MOST_NAMED]]
    if len(done.skipped) > MOST_NAMED:
        skipped.append(f"{len(done.skipped) - MOST_NAMED:,} more lines are left out; --json lists them.")
    return [f"{printable(done.directory)}: {counts} {ending}.", *missing, *skipped]
