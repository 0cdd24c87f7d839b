import pytest

from benchmarks import goals


@pytest.fixture(autouse=True)
def goals_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goals that stay the same when those of the project change."""
    for profile, ratio in {"minimal": 0.002, "standard": 0.01, "diagnostic": 0.05}.items():
        monkeypatch.setitem(goals.PROFILES["cpu"], profile, ratio)
