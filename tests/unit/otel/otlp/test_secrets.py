"""Credentials never appear in results, messages, logs, or representations, whatever a receiver or a library writes."""

import logging
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nissa.errors import ConfigurationError
from nissa.otel.otlp.client import OtlpClient
from nissa.otel.otlp.outcome import Outcome
from nissa.otel.otlp.redaction import Redactor, public_url
from nissa.otel.otlp.settings import OtlpSettings
from tests.receivers import Receiver, Response, grpc_receiver, http_receiver

PRINTABLE = st.characters(codec="utf-8", min_codepoint=33, max_codepoint=0x24F, exclude_categories=("Cc", "Cs", "Zs"))
SECRETS = st.text(PRINTABLE, min_size=6, max_size=30).map(lambda text: f"s3c{text}")
LATIN_SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=("Cc", "Zs")), min_size=6
).map(lambda text: f"s3c{text}")
ASCII_SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30).map(
    lambda text: f"s3c{text}"
)


@pytest.fixture(scope="module")
def http() -> Iterator[Receiver]:
    with http_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def over_grpc() -> Iterator[Receiver]:
    with grpc_receiver() as receiver:
        yield receiver


class Records(logging.Handler):
    """Keeps everything that is logged, formatted."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.args} {record.exc_info}")


def written(environ: dict[str, str], protocol: str, *, sends: bool = True) -> tuple[str, Outcome | None]:
    """Return everything that is written while a request is sent under variables, and the outcome."""
    records, root = Records(), logging.getLogger()
    level = root.level
    root.addHandler(records)
    root.setLevel(logging.DEBUG)
    outcome = None
    texts: list[object] = []
    try:
        found = OtlpSettings.from_environment("traces", environ, protocol=protocol)
        texts += [found, [found], found.destination, found.address]
        client = OtlpClient(found)
        if sends:
            result = client.send(b"", gzipped=False, timeout=3)
            texts += [result, result.reason, dict(result.headers)]
            outcome = result.outcome
        client.close()
    except ConfigurationError as error:
        texts += [error, repr(error)]
    finally:
        root.removeHandler(records)
        root.setLevel(level)
    return "\n".join([*map(str, texts), *records.lines]), outcome


def forms(secret: str) -> set[str]:
    """Return forms in which a secret would still be readable."""
    return {form.lower() for form in (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1])}


def assert_hidden(text: str, *secrets: str) -> None:
    for secret in secrets:
        for form in forms(secret):
            assert form not in text.lower(), f"{form!r} in {text!r}"


EXAMPLES = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@EXAMPLES
@given(
    password=SECRETS,
    key=SECRETS,
    header=LATIN_SECRETS,
)
def test_over_http_whatever_the_receiver_repeats(http: Receiver, password: str, key: str, header: str) -> None:
    url = f"http://user:{quote(password, safe='')}@127.0.0.1:{http.port}/v1/traces?api_key={quote(key, safe='')}"
    repeated = f"{url} {password} {key} {header} {quote(header)} {header!r} user:{password}"
    for status in (200, 302, 400, 401, 503):
        location = {"Location": url} if status == 302 else {}
        http.script = [Response(status, {"Content-Type": "text/plain; x=" + quote(key), **location}, repeated.encode())]
        environ = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{quote(header, safe='')}",
        }
        text, outcome = written(environ, "http/protobuf")
        assert outcome is not None
        assert_hidden(text, password, key, header)
        assert f"http://127.0.0.1:{http.port}" in text


@EXAMPLES
@given(password=ASCII_SECRETS, header=ASCII_SECRETS)
def test_over_grpc_whatever_the_receiver_repeats(over_grpc: Receiver, password: str, header: str) -> None:
    over_grpc.script = [
        Response(grpc.StatusCode.UNAUTHENTICATED, details=f"who is {header} or {password}, {quote(header)}?")
    ]
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:{quote(password, safe='')}@127.0.0.1:{over_grpc.port}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{quote(header, safe='')}",
    }
    text, outcome = written(environ, "grpc")
    assert outcome is Outcome.REFUSED
    assert "who is ***" in text
    assert_hidden(text, password, header)


@EXAMPLES
@given(secret=SECRETS)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_where_nobody_answers(protocol: str, secret: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    hidden = quote(secret, safe="")
    environ = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{hidden}:{hidden}@127.0.0.1:{port}/?api_key={hidden}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={hidden}, {secret}" if protocol != "grpc" else "",
    }
    text, _ = written(environ, protocol, sends=protocol != "grpc")
    assert_hidden(text, secret)


@EXAMPLES
@given(
    secret=SECRETS,
    protocol=st.sampled_from(["http/protobuf", "http/json", "grpc"]),
    broken=st.sampled_from(
        [
            "http://user:{0}@host:port",
            "user:{0}@host:4318",
            "ftp://user:{0}@host",
            "http://user:{0}@",
            "http://[::1?k={0}",
            "https://user:{0}@127.0.0.1:9/x?{0}",
            "http://user:{0}@host name:4318",
        ]
    ),
)
def test_messages_about_settings_that_cannot_be_used(secret: str, protocol: str, broken: str) -> None:
    variables = {
        "ENDPOINT": {"OTEL_EXPORTER_OTLP_ENDPOINT": broken.format(quote(secret, safe=""))},
        "HEADERS": {
            "OTEL_EXPORTER_OTLP_HEADERS": f'x-key={quote(secret, safe="")}%0A,{secret}"',
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1",
        },
    }
    for environ in variables.values():
        text, _ = written(environ, protocol, sends=False)
        assert_hidden(text, secret)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("http://user:pass@host:1/v1?api_key=x#y", "http://host:1/v1"),
        ("user:pass@host:4317", "host:4317"),
        ("https://token@host", "https://host"),
        ("http://user:pa/ss@host:1/v1", "http://host:1/v1"),
        ("unix:///run/otel.sock", "unix:///run/otel.sock"),
        ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
    ],
)
def test_what_is_shown_of_an_endpoint(url: str, public: str) -> None:
    assert public_url(url) == public


def test_unknown_credentials_of_urls_are_hidden_too() -> None:
    said = "to http://a:b@proxy:1/x?k=v, url: /v1/traces?api_key=z (Caused by nothing)"
    assert Redactor([]).clean(said) == "to http://proxy:1/x url: /v1/traces (Caused by nothing)"


def test_the_debug_log_of_the_http_library_is_silent_about_our_requests_only(caplog: Any) -> None:
    import requests  # noqa: PLC0415 - what an application does

    caplog.set_level(logging.DEBUG)
    with http_receiver() as receiver:
        text, _ = written({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/?api_key=s3cret"}, "http/protobuf")
        requests.post(f"{receiver.url}/theirs", timeout=5)
    assert "s3cret" not in text + caplog.text
    assert "/theirs" in caplog.text
