"""One launch for each number of processes, whatever the number of tests that look at it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.stack_build import locked
from tests.distributed.launching import findings, launch
from tests.support import shared_folder

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(scope="session")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this test run share."""
    return shared_folder(tmp_path_factory, "launches")


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
