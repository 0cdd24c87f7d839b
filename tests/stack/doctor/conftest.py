"""What the tests of the doctor share: processes, certificates, a collector."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme

from tests.stack.certificates import write_certificates
from tests.stack.doctor.process import Certificates, Doctor, consult
from tests.stack.variables.own_collector import OwnCollector, own_collector


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))  # the first one may have to build the collector


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Return `consult` in a folder of the test's own."""
    return partial(consult, tmp_path / "doctor")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = trustme.CA(), trustme.CA()
    write_certificates(folder, authority)
    other.cert_pem.write_to_path(str(folder / "other-ca.pem"))
    return Certificates(folder, authority)


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[OwnCollector]:
    with own_collector(tmp_path_factory.mktemp("own") / "collector", certificates.folder) as found:
        yield found
