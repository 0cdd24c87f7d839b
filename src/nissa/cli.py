"""The command line."""

import json as json_module
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from nissa.errors import NissaError
from nissa.version import VERSION

app = typer.Typer(
    name="nissa",
    help="Watch a network grow while it trains: OpenTelemetry for PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


def _print_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"nissa {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


@app.command()
def demo(
    *,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Decides everything random; a fixed one if not given.")
    ] = None,
    profile: Annotated[str, typer.Option(help="What is measured; see nissa profiles.")] = "diagnostic",
    directory: Annotated[
        str | None, typer.Option(help="Where the run's folder is made; nissa-runs if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Grow a small network on handwritten digits, and look at its telemetry; about a minute."""
    from nissa.demo.app import SEED, run_demo  # noqa: PLC0415 - help stays quick without it

    run_demo(seed=SEED if seed is None else seed, profile=profile, directory=directory, json_output=json)


@app.command()
def profiles(*, json: Json = False) -> None:
    """List the profiles and the settings in which each differs from the defaults."""
    from nissa.profiles import PROFILES, TelemetryConfig, describe  # noqa: PLC0415 - help stays quick without it

    configs = {name: TelemetryConfig.from_profile(name) for name in PROFILES}
    if json:
        plain = {
            name: {**each.model_dump(mode="json"), "feature_count": each.feature_count}
            for name, each in configs.items()
        }
        typer.echo(json_module.dumps(plain, indent=2))
        return
    table = Table(Column("setting", no_wrap=True), *PROFILES, title="Where profiles differ; defaults are dim")
    for setting in describe(TelemetryConfig):
        values = [_at(config, setting.path) for config in configs.values()]
        if any(value != setting.default for value in values) and setting.path != "profile_name":
            marked = [_shown(value) if value != setting.default else f"[dim]{_shown(value)}[/]" for value in values]
            table.add_row(setting.path, *marked)
    table.add_row("numbers per snapshot", *(str(config.feature_count) for config in configs.values()))
    Console().print(table)


def _at(config: object, path: str) -> object:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def main() -> None:
    """Run the command line; a mistake of the user's is a message, not a traceback."""
    try:
        app()
    except NissaError as error:
        typer.echo(f"nissa: {error}", err=True)
        sys.exit(2)
