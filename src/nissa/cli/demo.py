"""Command ``nissa demo``."""

from typing import Annotated, Final

import typer

from nissa.cli.output import Json

EXAMPLES: Final = (
    ("nissa demo", "watch two environments grow seeds"),
    ("nissa demo --profile minimal --seed 3", "other seeds, without gradients"),
    ("nissa demo --json > demo.json", "what happened, for a script"),
)


def demo(
    *,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="Decides everything random; a fixed one if not given.")
    ] = None,
    profile: Annotated[str, typer.Option(metavar="NAME", help="What is measured; see nissa profiles.")] = "diagnostic",
    directory: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where the run's folder is made; nissa-runs if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Grow a small network on handwritten digits, and look at its telemetry; about a minute.

    Where OTEL_* variables name a collector, the telemetry goes there; else to files, whose paths are printed.
    """
    from nissa.demo.app import SEED, run_demo  # noqa: PLC0415 - help stays quick without it

    run_demo(seed=SEED if seed is None else seed, profile=profile, directory=directory, json_output=json)
