import logging
from collections.abc import Iterator

import pytest

from benchmarks import goals


@pytest.fixture(autouse=True)
def goals_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goals that stay the same when those of the project change."""
    for profile, ratio in {"minimal": 0.002, "standard": 0.01, "diagnostic": 0.05}.items():
        monkeypatch.setitem(goals.PROFILES["cpu"], profile, ratio)


@pytest.fixture(autouse=True)
def level_of_the_logger() -> Iterator[None]:
    """Restore the level of Nissa's logger, which benchmarks raise for the rest of their process."""
    logger = logging.getLogger("nissa")
    level = logger.level
    yield
    logger.setLevel(level)
