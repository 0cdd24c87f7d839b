"""Command ``nissa demo``."""

from typing import Annotated, Final

import typer

from nissa.cli.output import Json

EXAMPLES: Final = (
    ("nissa demo", "train two environments with seeds"),
    ("nissa demo --epochs 34", "end earlier, with fewer seeds"),
    ("nissa demo --profile minimal --seed 3", "other seeds, without gradients"),
    ("nissa demo --json > demo.json", "print the results for a script"),
)


def demo(
    *,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="Random seed; without it a fixed one.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Epochs per environment, 48 if not given; with fewer than 28 no seed is germinated.",
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="Profile of settings; see nissa profiles.")
    ] = "diagnostic",
    directory: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Parent folder of the run's folder; default nissa-runs.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a small network with seeds on handwritten digits and record its telemetry; about a minute.

    Telemetry is sent to the collector that OTEL_* variables name; without them it is written to files, whose paths are printed.
    """
    from nissa.demo.app import EPOCHS, SEED, run_demo  # noqa: PLC0415 - help stays quick without it

    run_demo(
        seed=SEED if seed is None else seed,
        epochs=EPOCHS if epochs is None else epochs,
        profile=profile,
        directory=directory,
        json_output=json,
    )
