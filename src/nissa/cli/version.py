"""Command ``nissa version`` and option ``nissa --version``."""

from typing import Final

import typer

from nissa.cli.output import Json, print_json
from nissa.version import VERSION

EXAMPLES: Final = (
    ("nissa version", "print one line"),
    ("nissa version --json", "print JSON for a script"),
)


def version(*, json: Json = False) -> None:
    """Print the version."""
    if json:
        print_json({"nissa": VERSION})
    else:
        _print()


def print_version(*, wanted: bool) -> None:
    """Print the version and exit if ``--version`` was passed."""
    if wanted:
        _print()
        raise typer.Exit


def _print() -> None:
    typer.echo(f"nissa {VERSION}")
