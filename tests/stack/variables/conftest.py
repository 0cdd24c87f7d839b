"""What the tests of the variables share: processes, a collector, certificates."""

from functools import partial
from pathlib import Path

import pytest
import trustme

from tests.stack.certificates import write_certificates
from tests.stack.variables.own_collector import own_collector
from tests.stack.variables.small_run import Collecting, Run, train

REPRESENTATIVE = {
    "test_by_default_all_is_sampled_and_exemplars_lead_to_the_epoch",
    "test_grpc_with_headers_and_gzip_and_totals",
}
"""Tests of variables that are not marked ``full``. Together the others take minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))  # the first one may have to build the collector
            if item.name not in REPRESENTATIVE:
                item.add_marker(pytest.mark.full)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return `small_run.train` in a folder of the test's own."""
    return partial(train, tmp_path / "run")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority's certificate and those of a server and a client."""
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder, trustme.CA())
    return folder


@pytest.fixture
def collector(tmp_path: Path, certificates: Path) -> Collecting:
    """Return a way to run a collector with all doors; what arrived is complete when its block has ended."""
    return partial(own_collector, tmp_path / "collector", certificates)
