"""A small run, and what its report says."""

from pathlib import Path

import pytest

from nissa.recordings import read
from nissa.report.facts import Facts
from tests.recorded import Recorded


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return Facts(read(Recorded().write(tmp_path / "r")), "r")


@pytest.fixture
def killed(tmp_path: Path) -> Facts:
    """Return a run whose process was killed while its seeds were blended in."""
    return Facts(read(Recorded(ended=False).write(tmp_path / "k")), "k")
