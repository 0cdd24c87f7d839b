"""Credential providers: the same entry points are used as by the official exporters, with the same precedence."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.util import _importlib_metadata

from nissa.errors import ConfigurationError
from nissa.otel.otlp.client import OtlpClient
from nissa.otel.otlp.settings import OtlpSettings
from tests.receivers import Response, Tls, grpc_receiver, http_receiver
from tests.unit.otel.otlp.oracle import GRPC, HTTP, SIGNALS, Side, both, variables

_MODULE = """
import grpc, requests
AUTHORITY = {authority!r}

def session(key="general"):
    found = requests.Session()
    found.headers["x-provider"] = key
    found.auth = ("user", "s3cret")
    return found

def own_session():
    return session("own")

def channel(token="general"):
    with open(AUTHORITY, "rb") as file:
        secure = grpc.ssl_channel_credentials(file.read())
    return grpc.composite_channel_credentials(secure, grpc.access_token_call_credentials(token))

def own_channel():
    return channel("own")

def failing():
    raise RuntimeError("token s3cret is over")
"""
_ENTRY_POINTS = """[opentelemetry_otlp_credential_provider]
session = fake_credentials:session
own_session = fake_credentials:own_session
channel = fake_credentials:channel
own_channel = fake_credentials:own_channel
failing = fake_credentials:failing
"""


@pytest.fixture(autouse=True)
def providers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificates: Path) -> Iterator[None]:
    """Install a distribution with credential providers."""
    site = tmp_path / "site"
    metadata = site / "fake_credentials-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "fake_credentials.py").write_text(_MODULE.format(authority=str(certificates / "ca.pem")))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-credentials\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(_ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(__import__("sys").modules, "fake_credentials", raising=False)
    _importlib_metadata._original_entry_points_cached.cache_clear()
    yield
    _importlib_metadata._original_entry_points_cached.cache_clear()


def name(protocol: str, *, own: bool = False) -> str:
    signal = "{S}_" if own else ""
    return f"OTEL_PYTHON_EXPORTER_OTLP_{protocol}_{signal}CREDENTIAL_PROVIDER"


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({name("HTTP"): "session"}, "general"),
        ({name("HTTP", own=True): "own_session"}, "own"),
        ({name("HTTP"): "session", name("HTTP", own=True): "own_session"}, "general"),
        ({name("HTTP"): "session", "HEADERS": "x-provider=header"}, "header"),
    ],
    ids=["general", "own", "general-wins", "header-wins"],
)
def test_a_session_over_http(
    monkeypatch: pytest.MonkeyPatch, signal: str, given: dict[str, str], expected: str
) -> None:
    with http_receiver(Response(400, {"Content-Type": "text/plain"}, b"not dXNlcjpzM2NyZXQ=")) as receiver:
        for key, value in variables(signal, {"ENDPOINT": "{url}", **given}, url=receiver.url).items():
            monkeypatch.setenv(key, value)
        theirs, ours, result = both(signal, HTTP, [receiver])
    assert ours == theirs
    headers = ours.requests[0][1]
    assert (headers["x-provider"], headers["authorization"]) == (expected, "Basic dXNlcjpzM2NyZXQ=")
    assert result is not None
    assert result.reason == "400 Bad Request: not ***"


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({name("GRPC"): "channel"}, "Bearer general"),
        ({name("GRPC"): "channel", "CERTIFICATE": "{folder}/other/ca.pem"}, "Bearer general"),
        ({name("GRPC", own=True): "own_channel", "{S}_CERTIFICATE": "{folder}/ca.pem"}, "Bearer own"),
        (
            {
                name("GRPC"): "channel",
                name("GRPC", own=True): "own_channel",
                "{S}_CERTIFICATE": "{folder}/other/ca.pem",
            },
            "Bearer own",
        ),
        ({name("GRPC"): "channel", "{S}_CERTIFICATE": "{folder}/ca.pem"}, None),
        ({name("GRPC"): "channel", name("GRPC", own=True): "own_channel"}, "Bearer general"),
    ],
    ids=["general", "general-wins-over-files", "own", "own-wins", "own-files-win", "own-without-certificate"],
)
def test_channel_credentials_over_grpc(
    monkeypatch: pytest.MonkeyPatch, certificates: Path, signal: str, given: dict[str, str], expected: str | None
) -> None:
    with grpc_receiver(tls=Tls(certificates)) as receiver:
        endpoint = f"https://localhost:{receiver.port}"
        for key, value in variables(signal, {"ENDPOINT": endpoint, **given}, folder=certificates).items():
            monkeypatch.setenv(key, value)
        theirs, ours, _ = both(signal, GRPC, [receiver], attempts=1)
    assert ours == theirs
    assert [each[1].get("authorization") for each in ours.requests] == [expected]


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
@pytest.mark.parametrize(
    ("provider", "said"),
    [("absent", "Unknown credential provider 'absent'"), ("failing", "raised RuntimeError"), ("WRONG", "returned a")],
)
def test_a_provider_that_cannot_be_used_is_refused_by_both(
    monkeypatch: pytest.MonkeyPatch, protocol: str, provider: str, said: str
) -> None:
    given = {"WRONG": "channel" if protocol == HTTP else "session"}.get(provider, provider)
    monkeypatch.setenv(name("HTTP" if protocol == HTTP else "GRPC"), given)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:9")
    theirs, ours, _ = both("traces", protocol, [])
    assert ours == theirs == Side([], delivered=None)
    with pytest.raises(ConfigurationError, match=said) as error:
        OtlpClient(OtlpSettings.from_environment("traces", protocol=protocol))
    assert "s3cret" not in str(error.value)
