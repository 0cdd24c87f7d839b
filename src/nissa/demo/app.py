"""Demo run: train two small networks on handwritten digits, graft seeds into them, and record all telemetry."""

import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

import nissa
from nissa.demo.blueprints import BLUEPRINTS
from nissa.demo.closing import closing
from nissa.demo.data import load
from nissa.demo.display import Display, Plain, Screen, Silent
from nissa.demo.recipe import Recipe
from nissa.demo.results import DemoReport, report_environment
from nissa.demo.trainer import Trainer
from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from nissa.demo.data import Digits
    from nissa.run.run import Run

ENVIRONMENTS = 2
"""Number of hosts to train, each with its own initial weights and batches."""

EPOCHS = 48
"""Epochs per host: enough to blend in three seeds one after the other."""

SEED = 7
"""Default random seed; chosen because it shows a seed that is culled only after blending."""


def run_demo(
    *,
    seed: int = SEED,
    epochs: int = EPOCHS,
    profile: str = "diagnostic",
    json_output: bool = False,
    directory: "str | os.PathLike[str] | None" = None,
    console: Console | None = None,
) -> DemoReport:
    """Run the demo and print its results; the duration is less than a minute on two idle cores.

    Args:
        seed: Random seed; the same value gives the same outcome on the same machine.
        epochs: Number of epochs per environment.
        profile: Name of the telemetry profile.
        json_output: Print only the report, as JSON.
        directory: Parent of the run's directory if no exporter is configured; ``nissa-runs`` if None.
        console: Console for the output; standard output if None.

    Raises:
        ConfigurationError: scikit-learn is not installed, or an argument is invalid.
    """
    if epochs < 1:
        raise ConfigurationError(f"epochs must be at least 1, not {epochs}.")
    console = console or Console()
    began = perf_counter()
    digits = load(torch.Generator().manual_seed(seed))
    files: dict[str, Any] = {} if directory is None else {"files__directory": str(directory)}
    with _one_thread(), nissa.start(profile, service_name="nissa-demo", console__enabled=False, **files) as run:
        trainers = _trainers(run, digits, seed=seed, epochs=epochs)
        display = _display(console, trainers, epochs, json_output=json_output)
        _train(trainers, display, epochs)
        report = _report(run, trainers, profile=profile, seed=seed, seconds=perf_counter() - began)
    report = _with_page(report)
    _print_report(report, console, json_output=json_output)
    return report


def _trainers(run: "Run", digits: "Digits", *, seed: int, epochs: int) -> list[Trainer]:
    # Each environment starts with another blueprint, so that every blueprint is tried. Random seeds are spaced because
    # a trainer adds the number of the graft to its own.
    share = -(-len(BLUEPRINTS) // ENVIRONMENTS)
    recipes = [
        Recipe(seed=1000 * seed + 100 * number, epochs=epochs, first_blueprint=share * number)
        for number in range(ENVIRONMENTS)
    ]
    return [
        Trainer(run.environment(number), env_id=number, digits=digits, recipe=recipe)
        for number, recipe in enumerate(recipes)
    ]


def _display(console: Console, trainers: list[Trainer], epochs: int, *, json_output: bool) -> Display:
    if json_output:
        return Silent()
    return Screen(console, trainers, epochs) if console.is_terminal else Plain(console, trainers, epochs)


def _train(trainers: list[Trainer], display: Display, epochs: int) -> None:
    with display:
        for epoch in range(epochs):
            for trainer in trainers:
                trainer.run_epoch(epoch)
                display.environment_done()
            display.epoch_done(epoch)


def _report(run: "Run", trainers: list[Trainer], *, profile: str, seed: int, seconds: float) -> DemoReport:
    return DemoReport(
        run_id=run.run_id,
        directory=None if run.directory is None else str(run.directory),
        destination=run.destination,
        profile=profile,
        seed=seed,
        seconds=seconds,
        environments=tuple(report_environment(trainer) for trainer in trainers),
    )


def _with_page(report: DemoReport) -> DemoReport:
    """Write the HTML report if the telemetry is in local files; without plotly the demo continues without a report."""
    if report.directory is None:
        return replace(report, no_page="the telemetry is not in files")
    try:
        from nissa.report import write_report  # noqa: PLC0415 - plotly is an extra

        return replace(report, page=write_report(Path(report.directory)).path)
    except ConfigurationError as error:
        return replace(report, no_page=str(error))


def _print_report(report: DemoReport, console: Console, *, json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        for line in closing(report):
            console.print(line, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _one_thread() -> "Iterator[None]":
    # For tensors this small, the overhead of intra-op threads exceeds their gain.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
