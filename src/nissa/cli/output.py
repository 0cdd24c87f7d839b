"""What the commands share: the ``--json`` option, exit codes, and printing."""

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]


class ExitCode(IntEnum):
    """What a command's exit status means."""

    FINE = 0
    """It did what it was asked, and found nothing wrong."""

    FINDINGS = 1
    """It ran, and what it found needs attention; it says what."""

    MISUSE = 2
    """It could not run as it was called or configured; the message says what to change."""


EXIT_CODES = "\b\nExit codes:\n  0  fine\n  1  something was found that needs attention\n  2  it was called or configured wrongly"
"""What the help of each command ends with."""


def epilog(*examples: tuple[str, str]) -> str:
    """Return the end of a command's help: examples, each with what it does, and the exit codes."""
    lines = [f"  {command}\n      {does}" for command, does in examples]
    return "\n".join(["\b", "Examples:", *lines]) + f"\n\n{EXIT_CODES}"


def print_json(value: Any) -> None:
    """Print a value as JSON; what JSON does not know is printed as text."""
    typer.echo(json.dumps(value, indent=2, default=str))


def console() -> "Console":
    """Return where tables go; wide enough not to cut them where nobody looks at a terminal."""
    from rich.console import Console  # noqa: PLC0415 - help stays quick without it

    found = Console()
    return found if found.is_terminal else Console(width=160)
