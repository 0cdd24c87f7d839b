"""Typer application with all commands, and the entry point ``nissa``."""

import sys
from typing import Annotated

import typer

from nissa.cli import demo, doctor, profiles, replay, report, run, version
from nissa.cli.output import ExitCode, epilog
from nissa.errors import NissaError
from nissa.printable import printable_lines

_EXAMPLES = (
    ("nissa demo", "run a small example, in about a minute"),
    ("nissa run train.py", "run a training script with telemetry, without a change to it"),
    ("nissa profiles", "compare what the profiles measure"),
    ("nissa report", "write the newest run as one HTML page"),
    ("nissa doctor", "check that telemetry can be sent from this machine"),
    ("nissa replay DIR", "send the files of a run to a collector"),
    ("nissa COMMAND --help", "show the options and examples of a command"),
)

app = typer.Typer(
    name="nissa",
    help="OpenTelemetry for PyTorch training.",
    epilog=epilog(*_EXAMPLES),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)

app.command(epilog=epilog(*demo.EXAMPLES))(demo.demo)
app.command(epilog=epilog(*run.EXAMPLES, codes=run.EXIT_CODES), context_settings=run.CONTEXT)(run.run)
app.command(epilog=epilog(*profiles.EXAMPLES))(profiles.profiles)
app.command(epilog=epilog(*doctor.EXAMPLES))(doctor.doctor)
app.command(epilog=epilog(*replay.EXAMPLES))(replay.replay)
app.command(epilog=epilog(*report.EXAMPLES))(report.report)
app.command(epilog=epilog(*version.EXAMPLES))(version.version)


@app.callback()
def _options(
    *,
    wanted: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=version.print_version, is_eager=True),
    ] = False,
) -> None:
    """Define the options that precede a command."""


def main() -> None:
    """Run the command line; print a `NissaError` as a message without traceback, and exit with code 2."""
    try:
        app()
    except NissaError as error:
        typer.echo(f"nissa: {printable_lines(str(error))}", err=True)
        sys.exit(ExitCode.MISUSE)
