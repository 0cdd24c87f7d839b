"""The demo: two environments grow seeds on handwritten digits, and everything that happens becomes telemetry."""

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
from nissa.demo.report import DemoReport, report_environment
from nissa.demo.trainer import Trainer
from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from nissa.demo.data import Digits
    from nissa.run import Run

ENVIRONMENTS = 2
"""How many hosts are trained, each from other initial weights and on other batches."""

EPOCHS = 48
"""Epochs of a demo: enough for three seeds, one after the other, to be blended into each host."""

SEED = 7
"""The seed of everything random unless another one is asked for: with it, one seed is refused only after blending."""


def run_demo(
    *,
    seed: int = SEED,
    epochs: int = EPOCHS,
    profile: str = "diagnostic",
    json_output: bool = False,
    directory: "str | os.PathLike[str] | None" = None,
    console: Console | None = None,
) -> DemoReport:
    """Train, grow, tell; less than a minute on two idle cores.

    Args:
        seed: Decides everything random; the same seed gives the same outcome on the same machine.
        epochs: Epochs to train each environment.
        profile: What is measured.
        json_output: Print the report as JSON, and nothing else.
        directory: Where the run's directory is made, if no exporter is configured; else ``nissa-runs``.
        console: Where to print; standard output if None.

    Raises:
        ConfigurationError: scikit-learn is missing, or an argument cannot be used; the message says what to do.
    """
    if epochs < 1:
        raise ConfigurationError(f"A demo of {epochs} epochs shows nothing; epochs must be at least 1.")
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
    _tell(report, console, json_output=json_output)
    return report


def _trainers(run: "Run", digits: "Digits", *, seed: int, epochs: int) -> list[Trainer]:
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
    """Write the report of the run, unless its telemetry is elsewhere; a demo does not fail for the want of plotly."""
    if report.directory is None:
        return replace(report, no_page="its telemetry went elsewhere")
    try:
        from nissa.report import write_report  # noqa: PLC0415 - plotly is an extra

        return replace(report, page=write_report(Path(report.directory)).path)
    except ConfigurationError as error:
        return replace(report, no_page=str(error))


def _tell(report: DemoReport, console: Console, *, json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        for line in closing(report):
            console.print(line, soft_wrap=True, highlight=False)


@contextmanager
def _one_thread() -> "Iterator[None]":
    # Tensors this small are slower on several threads than on one.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
