"""A host, its digits and a run, small enough for a unit test."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nissa
from nissa.demo.data import Digits, Split, load
from nissa.demo.policy import Policy
from nissa.demo.recipe import Recipe
from nissa.run.run import Run

HASTY = Policy(
    window=1,
    warmup_epochs=2,
    stable_change=1.0,
    training_epochs=1,
    training_patience=2,
    blending_epochs=2,
    probation_epochs=1,
    probation_patience=2,
    settling_epochs=1,
)
"""Asks the same questions, after fewer epochs."""

HASTY_RECIPE = Recipe(seed=1, epochs=12, batch_size=256, warmup_epochs=2, policy=HASTY)


@pytest.fixture(scope="session")
def all_digits() -> Digits:
    return load(torch.Generator().manual_seed(0))


@pytest.fixture
def digits(all_digits: Digits) -> Digits:
    validation = all_digits.validation
    return replace(all_digits, validation=Split(validation.images[:300], validation.labels[:300]))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    nissa.reset_hub()
    with nissa.start("minimal", console__enabled=False, files__directory=str(tmp_path)) as started:
        yield started
    nissa.reset_hub()
