"""What the tests of the OTLP client share: an environment without proxies and bundles, and certificates."""

import os
from pathlib import Path

import pytest
import trustme

from tests.stack.certificates import write_certificates


@pytest.fixture(autouse=True)
def no_network_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove variables of other libraries that change how requests are sent."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name in {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the certificates of an authority, a server and a client, and those of another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder, trustme.CA())
    (folder / "other").mkdir()
    write_certificates(folder / "other", trustme.CA())
    return folder
