"""Shared parts of the commands: the ``--json`` option, exit codes and printing."""

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]


class ExitCode(IntEnum):
    """Exit codes of the commands."""

    FINE = 0
    """Success without findings."""

    FINDINGS = 1
    """Success, but the printed findings need attention."""

    MISUSE = 2
    """Invalid call or configuration; the message contains the correction."""


EXIT_CODES = "\b\nExit codes:\n  0  success\n  1  findings that need attention\n  2  invalid arguments or configuration"
"""Text at the end of the help of each command."""


def epilog(*examples: tuple[str, str], codes: str = EXIT_CODES) -> str:
    """Return the end of a command's help: its examples with their descriptions, and the exit codes."""
    lines = [f"  {command}\n      {does}" for command, does in examples]
    return "\n".join(["\b", "Examples:", *lines]) + f"\n\n{codes}"


def print_json(value: Any) -> None:
    """Print a value as JSON; values without a JSON type are converted to strings."""
    typer.echo(json.dumps(value, indent=2, default=str))


def console() -> "Console":
    """Return the console for tables; if output is not a terminal, it is wide enough not to truncate them."""
    from rich.console import Console  # noqa: PLC0415 - help stays quick without it

    found = Console()
    return found if found.is_terminal else Console(width=160)
