"""Where a replay sends to: what is given, else what the variables say; credentials are used and never shown."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nissa.cli.app import app
from nissa.errors import ConfigurationError
from nissa.otel.replay import replay
from tests import otlp
from tests.receivers import http_receiver

SECRET = "s3cret-value"  # noqa: S105 - nobody's


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return otlp.write(tmp_path / "r", traces=[otlp.spans(otlp.span("s", 1, 2, {}, trace="0a" * 16, own="0b" * 8))])


def test_credentials_are_sent_and_not_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={SECRET}-header")
    with http_receiver() as receiver:
        endpoint = f"http://user:{SECRET}@127.0.0.1:{receiver.port}/base?api_key={SECRET}-key"
        arguments = ["replay", str(folder), "--endpoint", endpoint, "--protocol", "http/json"]
        done = [CliRunner().invoke(app, [*arguments, *more]) for more in ([], ["--json"])]
    assert [each.exit_code for each in done] == [0, 0]
    assert f"went to http://127.0.0.1:{receiver.port}/base (http/json)" in done[0].output
    assert all(SECRET not in each.output for each in done)
    assert {each.path for each in receiver.got} == {f"/base/v1/traces?api_key={SECRET}-key"}
    assert {each.headers["x-key"] for each in receiver.got} == {f"{SECRET}-header"}
    assert {each.headers["content-type"] for each in receiver.got} == {"application/json"}
    assert all(each.headers["authorization"].startswith("Basic ") for each in receiver.got)


def test_the_endpoint_of_the_signal_is_used_where_none_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.url}/own")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        assert replay(folder).signals["traces"].endpoint == f"{receiver.url}/own"
    assert [each.path for each in receiver.got] == ["/own"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give --endpoint"),
        ({"protocol": "grpc"}, "give both"),
        ({"endpoint": "http://h:1", "protocol": "udp"}, "Unknown protocol 'udp'"),
        ({"endpoint": "h:1", "protocol": "http/protobuf"}, "does not begin with http"),
    ],
)
def test_a_destination_that_cannot_be_used_is_refused(folder: Path, given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        replay(folder, **given)  # type: ignore[arg-type]  # the keywords vary
