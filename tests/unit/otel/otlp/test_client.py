"""One attempt of the client against real receivers on the loopback interface."""

import gzip
import json
import socket
import threading
from email.utils import formatdate
from pathlib import Path
from time import monotonic, time
from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no types of its own
import pytest
import requests
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]  # the same
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]  # the same
from opentelemetry import context
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from nissa.otel.otlp.client import LARGEST_REQUEST, OtlpClient
from nissa.otel.otlp.outcome import Outcome, SendResult
from nissa.otel.otlp.settings import OtlpSettings
from tests.receivers import Receiver, Response, grpc_receiver, http_receiver
from tests.support import finish, script

GRPC, HTTP, JSON = "grpc", "http/protobuf", "http/json"


def request(size: int = 0) -> bytes:
    """Return a serialized request with one span."""
    found = ExportTraceServiceRequest()
    span = found.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = bytes(range(16)), bytes(range(8)), "step" + "x" * size
    span.kind, span.start_time_unix_nano = 1, 2**63
    span.attributes.add(key="traceId").value.string_value = "AAAA"
    span.attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    return bytes(found.SerializeToString())


PLAIN = request()
STORED = gzip.compress(PLAIN, mtime=0)


def client(at: str, protocol: str = HTTP, **settings: Any) -> OtlpClient:
    """Return a client of a receiver's address."""
    endpoint = at if protocol == GRPC else f"{at}/v1/traces"
    return OtlpClient(OtlpSettings("traces", protocol, endpoint, **{"insecure": True, "timeout": 5.0, **settings}))


def sent(receiver: Receiver, protocol: str = HTTP, **settings: Any) -> SendResult:
    """Send one request to a receiver."""
    found = client(receiver.url, protocol, **settings)
    try:
        return found.send(STORED)
    finally:
        found.close()


def test_a_stored_payload_is_sent_over_http_exactly_as_it_is() -> None:
    with http_receiver() as receiver:
        assert sent(receiver, compression="gzip") == SendResult(Outcome.DELIVERED, status="200")
    (got,) = receiver.got
    assert (got.path, got.body) == ("/v1/traces", STORED)
    assert (got.headers["content-encoding"], got.headers["content-type"]) == ("gzip", "application/x-protobuf")


@pytest.mark.parametrize("compression", ["none", "deflate", "gzip"])
@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_the_receiver_gets_the_same_request_in_each_form(protocol: str, compression: str, *, gzipped: bool) -> None:
    if (protocol, compression) == (GRPC, "deflate"):
        return  # which collectors do not accept; the settings refuse it
    with (grpc_receiver if protocol == GRPC else http_receiver)() as receiver:
        found = client(receiver.url, protocol, compression=compression)
        assert found.send(STORED if gzipped else PLAIN, gzipped=gzipped).outcome is Outcome.DELIVERED
        found.close()
    (got,) = receiver.got
    assert got.plain == PLAIN
    assert got.path.endswith("/Export" if protocol == GRPC else "/v1/traces")


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_json_has_hexadecimal_ids_and_numeric_enumerations(compression: str) -> None:
    with http_receiver() as receiver:
        assert sent(receiver, JSON, compression=compression).outcome is Outcome.DELIVERED
    (got,) = receiver.got
    span = json.loads(got.plain)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert got.headers["content-type"] == "application/json"
    assert span == {
        "traceId": "000102030405060708090a0b0c0d0e0f",
        "spanId": "0001020304050607",
        "name": "step",
        "kind": 1,
        "startTimeUnixNano": "9223372036854775808",
        "attributes": [
            {"key": "traceId", "value": {"stringValue": "AAAA"}},
            {"key": "raw", "value": {"bytesValue": "AP8="}},
        ],
    }


@pytest.mark.parametrize(
    ("status", "outcome", "endpoint_fault"),
    [
        *((status, Outcome.RETRY, False) for status in (429, 502, 503, 504)),
        *((status, Outcome.REFUSED, False) for status in (400, 408, 413, 500, 501)),
        *((status, Outcome.REFUSED, True) for status in (302, 401, 403, 404, 405, 415)),
        *((status, Outcome.DELIVERED, False) for status in (200, 202, 204)),
    ],
)
def test_http_statuses_mean_what_the_protocol_says(status: int, outcome: Outcome, *, endpoint_fault: bool) -> None:
    body = b"" if status in {204, 304} else b"because  of\nthis"
    with http_receiver(Response(status, {"Content-Type": "text/plain"}, body)) as receiver:
        result = sent(receiver)
    assert (result.outcome, result.endpoint_fault, result.status) == (outcome, endpoint_fault, str(status))
    assert len(receiver.got) == 1
    if outcome is not Outcome.DELIVERED:
        assert result.reason.startswith(str(status))
        assert "because of this" in result.reason


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:])
def test_grpc_codes_mean_what_the_protocol_says(code: Any) -> None:
    retryable = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
    with grpc_receiver(Response(code, details="for a reason")) as receiver:
        result = sent(receiver, GRPC)
    assert result.outcome is (Outcome.RETRY if code.name in retryable else Outcome.REFUSED)
    assert result.endpoint_fault is (code.name in {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})
    assert (result.status, result.reason) == (code.name, f"{code.name} for a reason")
    assert len(receiver.got) == 1


def test_codes_of_the_variable_are_retried_instead() -> None:
    with grpc_receiver(Response(grpc.StatusCode.INTERNAL), Response(grpc.StatusCode.UNAVAILABLE)) as receiver:
        found = client(receiver.url, GRPC, retryable_codes=frozenset({"INTERNAL"}))
        assert [found.send(STORED).outcome for _ in range(2)] == [Outcome.RETRY, Outcome.REFUSED]
        found.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), ("inf", None), ("", None), ("DATE", 60), ("PAST", 0)],
)
def test_a_pause_that_http_asks_for_is_returned(value: str, seconds: float | None) -> None:
    dates = {"DATE": formatdate(time() + 60, usegmt=True), "PAST": formatdate(1, usegmt=True)}
    with http_receiver(Response(503, {"Retry-After": dates.get(value, value)})) as receiver:
        result = sent(receiver)
    assert result.outcome is Outcome.RETRY
    assert result.retry_after == (pytest.approx(seconds, abs=3) if value == "DATE" else seconds)


@pytest.mark.parametrize("form", ["details", "alone"])
def test_a_pause_that_grpc_asks_for_makes_an_exhausted_resource_retryable(form: str) -> None:
    pause = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED)
    status.details.add().Pack(pause)
    trailing = {
        "details": {"grpc-status-details-bin": status.SerializeToString()},
        "alone": {"google.rpc.retryinfo-bin": pause.SerializeToString()},
    }
    with grpc_receiver(Response(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing[form])) as receiver:
        result = sent(receiver, GRPC)
    assert (result.outcome, result.retry_after) == (Outcome.RETRY, 2.5)


@pytest.mark.parametrize("key", ["grpc-status-details-bin", "google.rpc.retryinfo-bin"])
@pytest.mark.parametrize("value", [b"\xff\xff", b"", b"\x1a\x02\x0a\xff"])
def test_details_that_cannot_be_read_ask_for_no_pause(key: str, value: bytes) -> None:
    with grpc_receiver(Response(grpc.StatusCode.UNAVAILABLE, {key: value})) as receiver:
        result = sent(receiver, GRPC)
    assert (result.outcome, result.retry_after or None) == (Outcome.RETRY, None)


@pytest.mark.parametrize("kind", ["protobuf", "json", "grpc"])
def test_rejected_items_of_a_delivered_request_are_counted(kind: str) -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans, partial.partial_success.error_message = 3, "too  old"
    body = partial.SerializeToString()
    if kind == "json":
        body = json.dumps({"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too  old"}}).encode()
    headers = {"Content-Type": "application/json"} if kind == "json" else {}
    with (grpc_receiver if kind == "grpc" else http_receiver)(Response(200, headers, body)) as receiver:
        result = sent(receiver, GRPC if kind == "grpc" else HTTP)
    assert (result.outcome, result.rejected, result.reason) == (Outcome.DELIVERED, 3, "too old")


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff",
        b"<html>",
        b"[1]",
        b'{"partialSuccess": 3}',
        b"null",
        b"[" * 60_000,
        b'{"partialSuccess": {"rejectedSpans": 1e400}}',
    ],
    ids=lambda body: body[:16],
)
@pytest.mark.parametrize("kind", ["application/json", "application/x-protobuf", "text/plain"])
def test_a_response_that_cannot_be_read_rejects_nothing(body: bytes, kind: str) -> None:
    with http_receiver(Response(200, {"Content-Type": kind}, body)) as receiver:
        assert sent(receiver) == SendResult(Outcome.DELIVERED, status="200")


def test_a_web_page_is_no_receipt() -> None:
    page = Response(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Please log in")
    with http_receiver(page) as receiver:
        found = sent(receiver)
    assert (found.outcome, found.endpoint_fault) == (Outcome.REFUSED, True)
    assert found.reason == "200 OK: a web page, not an OTLP receiver"


def test_a_compressed_and_chunked_response_is_read() -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    packed = gzip.compress(partial.SerializeToString(), mtime=0)
    body = b"%x\r\n%s\r\n" % (4, packed[:4]) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed) - 4, packed[4:])
    headers = {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip", "Content-Length": "0"}
    with http_receiver(Response(200, headers, body)) as receiver:
        found = client(receiver.url)
        assert [found.send(STORED).rejected for _ in range(2)] == [2, 2]
        found.close()


def test_connections_are_kept_and_opened_again_when_the_receiver_has_closed_them() -> None:
    script = [Response(body=b"ok"), Response(), Response(drop=True), Response(), Response()]
    with http_receiver(*script) as receiver:
        found = client(receiver.url)
        assert [found.send(STORED).outcome for _ in range(4)] == [Outcome.DELIVERED] * 4
        found.close()
    assert len(receiver.got) == 5
    connections = [each.connection for each in receiver.got]
    assert connections[0] == connections[1] == connections[2]
    assert connections[3] == connections[4] != connections[0]


def test_a_receiver_that_always_closes_the_connection_is_retried_later() -> None:
    with http_receiver(Response(drop=True)) as receiver:
        result = sent(receiver)
    assert (result.outcome, result.status) == (Outcome.RETRY, None)
    assert len(receiver.got) == 2


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_nobody_listens(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = client(f"http://127.0.0.1:{port}", protocol)
    began = monotonic()
    result = found.send(STORED)
    found.close()
    assert result.outcome is Outcome.RETRY
    assert "refused" in result.reason
    assert monotonic() - began < 4


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_a_receiver_that_hangs_costs_the_timeout(protocol: str) -> None:
    with (grpc_receiver if protocol == GRPC else http_receiver)(Response(wait=60)) as receiver:
        found = client(receiver.url, protocol)
        began = monotonic()
        result = found.send(STORED, timeout=0.3)
        assert 0.25 < monotonic() - began < 4
        assert found.send(STORED, timeout=0).reason == "no time left"
        found.close()
    assert result.outcome is Outcome.RETRY
    assert len(receiver.got) == 1


def test_a_response_byte_by_byte_costs_the_timeout_and_counts_by_its_status() -> None:
    with http_receiver(Response(body=b"x" * 1000, drip=0.05)) as receiver:
        found = client(receiver.url)
        began = monotonic()
        assert found.send(STORED, timeout=0.5).outcome is Outcome.DELIVERED
        assert monotonic() - began < 4
        found.close()


def test_an_endless_response_is_cut() -> None:
    with http_receiver(Response(503, body=b"spam " * 2_000_000)) as receiver:
        result = sent(receiver)
    assert result.outcome is Outcome.RETRY
    assert len(result.reason) <= 300


def test_a_grpc_receiver_that_comes_back_is_reached_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = client(f"http://127.0.0.1:{port}", GRPC)
    outcomes = [found.send(STORED, timeout=1).outcome for _ in range(6)]
    assert set(outcomes) == {Outcome.RETRY}
    with grpc_receiver(port=port):
        assert found.send(STORED, timeout=1).outcome is Outcome.DELIVERED
    found.close()


@pytest.mark.parametrize("protocol", [HTTP, JSON, GRPC])
@pytest.mark.parametrize("payload", [b"", b"garbage", STORED[:-9], b"\x1f\x8b\x08" + bytes(30)])
def test_a_payload_that_is_damaged_is_refused_and_not_sent(protocol: str, payload: bytes) -> None:
    with (grpc_receiver if protocol == GRPC else http_receiver)() as receiver:
        found = client(receiver.url, protocol, compression="none")
        result = found.send(payload)
        found.close()
    assert result.outcome is Outcome.REFUSED
    assert receiver.got == []


@pytest.mark.parametrize(("protocol", "gzipped"), [(HTTP, True), (JSON, True), (GRPC, True), (GRPC, False)])
def test_a_request_above_the_limit_of_otlp_is_refused_and_not_sent(protocol: str, *, gzipped: bool) -> None:
    large = bytes(LARGEST_REQUEST + 1)  # the size is checked first
    with (grpc_receiver if protocol == GRPC else http_receiver)() as receiver:
        found = client(receiver.url, protocol, compression="gzip")
        result = found.send(gzip.compress(large, 1) if gzipped else large, gzipped=gzipped)
        found.close()
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "the request is larger than 64 MiB")
    assert receiver.got == []


def test_a_request_that_is_too_large_for_a_grpc_receiver_is_refused() -> None:
    with grpc_receiver(options=(("grpc.max_receive_message_length", 1000),)) as receiver:
        found = client(receiver.url, GRPC)
        result = found.send(request(2000), gzipped=False)
        found.close()
    assert (result.outcome, result.status) == (Outcome.REFUSED, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_closing_from_another_thread_ends_a_request(protocol: str) -> None:
    with (grpc_receiver if protocol == GRPC else http_receiver)(Response(wait=1)) as receiver:
        found = client(receiver.url, protocol, timeout=30.0)
        results: list[SendResult] = []
        thread = threading.Thread(target=lambda: results.append(found.send(STORED)))
        thread.start()
        while not receiver.got:
            thread.join(0.01)
        found.close()
        thread.join(20)
    assert len(results) == 1
    assert found.send(STORED) == SendResult(Outcome.RETRY, "the client is closed")


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_each_signal_has_its_path_and_its_response(signal: str, protocol: str) -> None:
    body = ExportLogsServiceResponse()
    body.partial_success.rejected_log_records = 1
    with (grpc_receiver if protocol == GRPC else http_receiver)(Response(body=body.SerializeToString())) as receiver:
        settings = OtlpSettings.from_environment(signal, {}, endpoint=receiver.url, protocol=protocol)
        found = OtlpClient(settings)
        assert found.send(gzip.compress(b"", mtime=0)).rejected == 1
        found.close()
    service = {"traces": "trace", "metrics": "metrics", "logs": "logs"}[signal]
    name = f"{service.capitalize()}Service"
    expected = f"/opentelemetry.proto.collector.{service}.v1.{name}/Export" if protocol == GRPC else f"/v1/{signal}"
    assert [each.path for each in receiver.got] == [expected]


@pytest.fixture
def instrumented(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the requests that an instrumentation would see."""
    seen: list[str] = []
    original: Any = requests.Session.send

    def send(self: Any, prepared: Any, **kwargs: Any) -> Any:
        if not context.get_value("suppress_instrumentation"):
            seen.append(prepared.url)
        return original(self, prepared, **kwargs)

    monkeypatch.setattr(requests.Session, "send", send)
    return seen


def test_an_instrumentation_of_the_http_library_does_not_trace_exports(instrumented: list[str]) -> None:
    with http_receiver() as receiver:
        sent(receiver)
        assert len(receiver.got) == 1
    assert instrumented == []


def test_forks_during_requests_over_grpc_are_silent_and_lose_no_request(tmp_path: Path) -> None:
    body = """
    import os, sys, threading, time
    from nissa.otel.otlp.client import OtlpClient
    from nissa.otel.otlp.settings import OtlpSettings
    from tests.unit.otel.otlp.test_client import STORED

    client = OtlpClient(OtlpSettings("traces", "grpc", sys.stdin.read().strip(), insecure=True, timeout=30.0))
    results = []
    sending = threading.Thread(target=lambda: results.extend(client.send(STORED) for _ in range(3)))
    sending.start()
    children = []
    while sending.is_alive():
        time.sleep(0.2)
        children.append(os.fork())
        if children[-1] == 0:
            again = OtlpClient(client.settings)
            os._exit(again.send(STORED).status != "OK" if len(children) == 1 else 0)
    print({os.waitpid(child, 0)[1] for child in children}, [result.status for result in results])
    """
    with grpc_receiver(*[Response(wait=0.9)] * 4, Response()) as receiver:
        process = script(body, folder=tmp_path)
        assert process.stdin is not None
        process.stdin.write(receiver.url)
        process.stdin.close()
        assert finish(process) == (0, "{0} ['OK', 'OK', 'OK']\n", "")
    assert len(receiver.got) > 4, "some were interrupted"
    assert {received.body for received in receiver.got} == {PLAIN}
