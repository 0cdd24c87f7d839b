"""Ways of watching, as they are listed."""

import pytest

from benchmarks.goals import CHEAPER, PROFILES, SAMPLED
from benchmarks.steps.table import WAYS
from nissa.config import TelemetryConfig


@pytest.mark.parametrize("name", PROFILES["cpu"])
def test_a_profile_is_counted_from_one_of_its_samples_to_the_next(name: str) -> None:
    way = WAYS[name]
    gradients = TelemetryConfig.from_profile(name).gradients
    assert way.profile == name
    assert way.every == (gradients.every_n_steps if gradients.enabled else 1)


@pytest.mark.parametrize("name", [*PROFILES["cpu"], *CHEAPER, SAMPLED])
def test_what_decides_a_goal_takes_part_in_every_round(name: str) -> None:
    assert WAYS[name].rounds == 1
