"""Command ``nissa replay``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nissa.cli.output import ExitCode, Json, print_json

if TYPE_CHECKING:
    from nissa.otel.replay import Replayed

EXAMPLES: Final = (
    ("nissa replay nissa-runs/RUN --endpoint http://localhost:4317", "send a run's files to a collector"),
    ("nissa replay nissa-runs/RUN", "the same, to where OTEL_EXPORTER_OTLP_* say"),
    ("nissa replay nissa-runs/RUN --dry-run", "what there is to send"),
)


def replay(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run, with traces.jsonl, metrics.jsonl and logs.jsonl.")
    ],
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OTLP endpoint for all signals; where OTEL_EXPORTER_OTLP_* say if not given."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="PROTOCOL",
            help="With --endpoint: grpc or http/protobuf; else what OTEL_* say, else found out by asking.",
        ),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long to go on where the collector is away or busy."),
    ] = 60.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what there is, and send nothing.")] = False,
    json: Json = False,
) -> None:
    """Send the files of a run to a collector, with the times and ids that they have.

    Headers, certificates and compression are those of OTEL_EXPORTER_OTLP_*. A run may be sent again: ids and times stay
    the same. The last line of a killed process, where it is cut off, is left out and said.

    Exit code 1 means that something else was not sent; it says what, and why.
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
    from nissa.otel.export.reach import tally  # noqa: PLC0415 - help stays quick without it

    signals = done.signals.values()
    counts = tally({each.what: each.found if done.dry_run else each.sent for each in signals})
    where = sorted({f"{each.endpoint} ({each.protocol})" for each in signals if each.endpoint})
    ending = "would be sent" if done.dry_run else f"went to {', '.join(where)}"
    missing = [
        f"Not sent: {each.found - each.sent:,} of {each.found:,} {each.what}: {'; '.join(each.reasons)}."
        for each in signals
        if each.sent < each.found and not done.dry_run
    ]
    skipped = [f"{each.file}, line {each.line}: {each.reason}." for each in done.skipped]
    return [f"{done.directory}: {counts} {ending}.", *missing, *skipped]
