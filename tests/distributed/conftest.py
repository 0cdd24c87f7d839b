"""One launch for each number of processes, whatever the number of tests that look at it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.stack_build import locked
from tests.distributed.launching import findings, launch

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(scope="session")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this test run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "launches"
    folder.mkdir(exist_ok=True)
    return folder


def _launched(launches: Path, ranks: int) -> "dict[str, list[Mapping[str, Any]]]":
    folder = launches / f"ranks{ranks}"
    with locked(launches / f"lock{ranks}"):
        if not folder.exists():
            launch(folder, ranks)
    return findings(folder)


@pytest.fixture(scope="session")
def two_ranks(launches: Path) -> "dict[str, list[Mapping[str, Any]]]":
    """Return what two processes found, by scenario."""
    return _launched(launches, 2)


@pytest.fixture(scope="session")
def four_ranks(launches: Path) -> "dict[str, list[Mapping[str, Any]]]":
    """Return what four processes found, by scenario."""
    return _launched(launches, 4)
