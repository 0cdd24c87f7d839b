"""The official exporter over gRPC is the oracle: under the same variables a receiver gets the same from our client."""

from pathlib import Path
from time import monotonic
from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]  # the same
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # the same

from nissa.otel.otlp.outcome import Outcome, SendResult
from tests.receivers import Receiver, Response, Tls, grpc_receiver, http_receiver, relay
from tests.unit.otel.otlp.oracle import GRPC, SIGNALS, Side, both, deliver_official, deliver_ours, telemetry, variables

CASES = {
    "endpoint": {"ENDPOINT": "{url}"},
    "endpoint-with-path": {"ENDPOINT": "{url}/ignored?x=1"},
    "endpoint-of-the-signal": {"{S}_ENDPOINT": "{url}", "ENDPOINT": "http://127.0.0.1:9"},
    "address": {"ENDPOINT": "127.0.0.1:{port}", "INSECURE": "true"},
    "address-of-the-signal": {"ENDPOINT": "127.0.0.1:{port}", "INSECURE": "false", "{S}_INSECURE": "True"},
    "resolver": {"ENDPOINT": "dns:///127.0.0.1:{port}", "INSECURE": "true"},
    "headers": {"ENDPOINT": "{url}", "HEADERS": "x-key=value, x-text=a%20b%2Cc,X-Upper=Value"},
    "headers-of-the-signal": {"ENDPOINT": "{url}", "HEADERS": "x-key=1,x-other=2", "{S}_HEADERS": "x-key=own"},
    "headers-with-spaces": {"ENDPOINT": "{url}", "HEADERS": "authorization=Bearer a b,x-empty=,broken"},
    "gzip": {"ENDPOINT": "{url}", "COMPRESSION": "gzip"},
    "gzip-of-the-signal": {"ENDPOINT": "{url}", "{S}_COMPRESSION": "GZIP"},
    "timeout": {"ENDPOINT": "{url}", "TIMEOUT": "7", "{S}_TIMEOUT": "3.5"},
}


def set_variables(monkeypatch: pytest.MonkeyPatch, signal: str, given: dict[str, str], **values: Any) -> None:
    for name, value in variables(signal, given, **values).items():
        monkeypatch.setenv(name, value)


def compared(
    monkeypatch: pytest.MonkeyPatch, signal: str, given: dict[str, str], receiver: Receiver, **values: Any
) -> tuple[Side, Side, SendResult | None]:
    """Set variables, send with both sides, and return what they did."""
    set_variables(monkeypatch, signal, given, url=receiver.url, port=receiver.port, **values)
    return both(signal, GRPC, [receiver], attempts=1)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("case", CASES)
def test_what_arrives(monkeypatch: pytest.MonkeyPatch, signal: str, case: str) -> None:
    with grpc_receiver() as receiver:
        theirs, ours, _ = compared(monkeypatch, signal, CASES[case], receiver)
    assert ours == theirs
    assert (theirs.delivered, len(theirs.requests)) == (True, 1)


@pytest.mark.parametrize(
    "given", [{}, {"COMPRESSION": "gzip"}, {"LOGS_COMPRESSION": "gzip"}], ids=["none", "gzip", "own"]
)
def test_compression_is_seen_in_the_bytes_of_the_connection(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    sizes: list[int] = []
    with grpc_receiver() as receiver, relay(receiver) as (port, passed):
        set_variables(monkeypatch, "logs", {"ENDPOINT": f"http://127.0.0.1:{port}", **given})
        data = telemetry("logs", "x" * 200_000)
        for deliver in (deliver_official, deliver_ours):
            passed.clear()
            assert deliver("logs", GRPC, data) is True
            sizes.append(sum(passed))
    assert all((size < 50_000) is bool(given) for size in sizes)
    assert len({each.plain for each in receiver.got}) == 1


@pytest.mark.parametrize(
    ("signal", "given"),
    [("traces", {"TIMEOUT": "0.4"}), *((signal, {"{S}_TIMEOUT": "0.4", "TIMEOUT": "20"}) for signal in SIGNALS)],
)
def test_timeouts(monkeypatch: pytest.MonkeyPatch, signal: str, given: dict[str, str]) -> None:
    with grpc_receiver(Response(wait=10)) as receiver:
        began = monotonic()
        theirs, ours, result = compared(monkeypatch, signal, {"ENDPOINT": "{url}", **given}, receiver)
        assert monotonic() - began < 5
    assert ours == theirs
    assert theirs.delivered is False
    assert result is not None
    assert (result.outcome, result.status) == (Outcome.RETRY, "DEADLINE_EXCEEDED")


PAIR = {"CLIENT_KEY": "{folder}/client.key", "CLIENT_CERTIFICATE": "{folder}/client.pem"}
OWN_PAIR = {f"{{S}}_{name}": value for name, value in PAIR.items()}
TLS = {
    "authority": ({"CERTIFICATE": "{folder}/ca.pem"}, False, True),
    "address": ({"ENDPOINT": "localhost:{port}", "CERTIFICATE": "{folder}/ca.pem"}, False, True),
    "insecure-is-overruled": ({"INSECURE": "true", "CERTIFICATE": "{folder}/ca.pem"}, False, True),
    "own-authority": ({"{S}_CERTIFICATE": "{folder}/ca.pem", "CERTIFICATE": "{folder}/other/ca.pem"}, False, True),
    "other-authority": ({"CERTIFICATE": "{folder}/other/ca.pem"}, False, False),
    "system": ({}, False, False),
    "plain": ({"ENDPOINT": "http://127.0.0.1:{port}"}, False, False),
    "http-and-secure": (
        {"ENDPOINT": "http://127.0.0.1:{port}", "INSECURE": "false", "CERTIFICATE": "{folder}/ca.pem"},
        False,
        True,
    ),
    "mutual": ({"CERTIFICATE": "{folder}/ca.pem", **PAIR}, True, True),
    "mutual-own": ({"{S}_CERTIFICATE": "{folder}/ca.pem", **OWN_PAIR}, True, True),
    "mutual-across-scopes": ({"{S}_CERTIFICATE": "{folder}/ca.pem", **PAIR}, True, False),
    "mutual-without-authority": (PAIR, True, False),
    "mutual-missing": ({"CERTIFICATE": "{folder}/ca.pem"}, True, False),
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("case", TLS)
def test_tls(monkeypatch: pytest.MonkeyPatch, certificates: Path, signal: str, case: str) -> None:
    given, mutual, arrives = TLS[case]
    with grpc_receiver(tls=Tls(certificates, mutual=mutual)) as receiver:
        named = {"ENDPOINT": "{url}", "TIMEOUT": "5" if arrives else "0.5", **given}
        theirs, ours, result = compared(monkeypatch, signal, named, receiver, folder=certificates)
    assert ours == theirs
    assert theirs.delivered is arrives
    assert result is not None
    assert result.outcome is (Outcome.DELIVERED if arrives else Outcome.RETRY)
    if arrives and mutual:
        assert ours.requests[0][-1] == "trainer"


PROXIES = {
    "http": ({"http_proxy": "{proxy}"}, True),
    "grpc": ({"grpc_proxy": "{proxy}"}, True),
    "https": ({"https_proxy": "{proxy}"}, True),
    "no-proxy": ({"http_proxy": "{proxy}", "no_proxy": "example.org,127.0.0.1"}, False),
    "no-grpc-proxy": ({"grpc_proxy": "{proxy}", "no_grpc_proxy": "127.0.0.1"}, False),
    "credentials": ({"http_proxy": "http://user:s3cret@127.0.0.1:{proxy_port}"}, True),
}


@pytest.mark.parametrize("case", PROXIES)
def test_proxies(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    given, through_proxy = PROXIES[case]
    with grpc_receiver() as receiver, http_receiver() as proxy:
        values = {"url": receiver.url, "proxy": proxy.url, "proxy_port": proxy.port}
        set_variables(monkeypatch, "traces", {"ENDPOINT": "{url}", "TIMEOUT": "0.7", **given}, **values)
        theirs, ours, result = both("traces", GRPC, [receiver, proxy], attempts=1)
    assert {str(each) for each in ours.requests} == {str(each) for each in theirs.requests}
    assert ours.delivered is theirs.delivered is not through_proxy
    path = (
        f"127.0.0.1:{receiver.port}" if through_proxy else "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    )
    assert {each[0] for each in ours.requests} == {path}
    assert "s3cret" not in repr(result)


RETRY_AT_ONCE = {
    "google.rpc.retryinfo-bin": error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1000)).SerializeToString()
}


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:])
def test_codes_are_retried_or_refused(monkeypatch: pytest.MonkeyPatch, code: Any) -> None:
    with grpc_receiver(Response(code, RETRY_AT_ONCE), Response()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        theirs, ours, _ = both("traces", GRPC, [receiver])
    assert ours == theirs


@pytest.mark.parametrize("code", ["INTERNAL", "UNAVAILABLE"])
@pytest.mark.parametrize("value", ["internal, UNKNOWN", " unavailable ", ","])
def test_codes_of_the_variable_replace_those_of_the_protocol(
    monkeypatch: pytest.MonkeyPatch, code: str, value: str
) -> None:
    with grpc_receiver(Response(grpc.StatusCode[code], RETRY_AT_ONCE), Response()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", value)
        theirs, ours, _ = both("traces", GRPC, [receiver])
    # An empty list: the official exporter retries nothing, and we what the protocol says.
    if value != ",":
        assert ours == theirs
    assert ours.delivered is (code.lower() in value or (value == "," and code == "UNAVAILABLE"))


def test_a_request_that_is_too_large_is_delivered_by_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    data, results = telemetry("logs", "x" * 20_000), []  # type: tuple[Any, list[SendResult]]
    with grpc_receiver(options=(("grpc.max_receive_message_length", 10_000),)) as receiver:
        set_variables(monkeypatch, "logs", {"ENDPOINT": "{url}", "TIMEOUT": "0.5"}, url=receiver.url)
        assert deliver_official("logs", GRPC, data) is False
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
        assert deliver_ours("logs", GRPC, data, results=results) is False
    assert receiver.got == []
    assert results[0].outcome is Outcome.REFUSED, "the official exporter would send it again in vain"


@pytest.mark.parametrize(
    "given",
    [
        {"COMPRESSION": "zstd"},
        {"COMPRESSION": "deflate"},
        {"TIMEOUT": "soon"},
        {"OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": "BUSY"},
        {"OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": "absent", "ENDPOINT": "https://h"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_the_official_exporter_cannot_use_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    set_variables(monkeypatch, "traces", given)
    theirs, ours, _ = both("traces", GRPC, [])
    assert ours == theirs == Side([], delivered=None)
