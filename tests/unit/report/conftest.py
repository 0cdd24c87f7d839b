"""A small run, and what its report says."""

from pathlib import Path

import pytest

from nissa.recordings import read
from nissa.report.run_summary import RunSummary
from tests.recorded import Recorded


@pytest.fixture
def facts(tmp_path: Path) -> RunSummary:
    return RunSummary(read(Recorded().write(tmp_path / "r")), "r")


@pytest.fixture
def killed(tmp_path: Path) -> RunSummary:
    """Return a run whose process was killed while its seeds were blended in."""
    return RunSummary(read(Recorded(ended=False).write(tmp_path / "k")), "k")
