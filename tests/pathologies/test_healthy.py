from random import Random

import pytest

from tests.pathologies.healthy import RECIPES, Recipe
from tests.pathologies.losing import falsely_raised
from tests.pathologies.running import train
from tests.pathologies.scoring import HEALTHY_TUNING, of_recipe, random_seed

QUICK = {recipe.name for recipe in RECIPES[::5]}


def _parameters() -> list[object]:
    return [
        pytest.param(recipe, id=recipe.name, marks=() if recipe.name in QUICK else pytest.mark.full)
        for recipe in RECIPES
    ]


@pytest.mark.parametrize("recipe", _parameters())
def test_a_healthy_training_learns_and_raises_no_flag(recipe: Recipe) -> None:
    outcome = train(recipe.make, random_seed(recipe.name, HEALTHY_TUNING))
    assert recipe.learned(outcome)
    assert of_recipe(recipe, HEALTHY_TUNING, outcome).false == ()
    # Nor does a process under load, which loses some of what it measures, have a flag of its own.
    assert falsely_raised(outcome.readings, Random(recipe.name)) == {}  # noqa: S311 - no secret


def test_there_are_healthy_trainings_enough_and_their_names_differ() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES) >= 30
