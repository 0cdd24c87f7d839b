"""Retries of a sender, with a server that answers as it is told."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nissa.otel.otlp.outcome import Outcome, SendResult
from nissa.otel.otlp.settings import OtlpSettings
from nissa.otel.replay import wire
from nissa.otel.replay.requests import message
from nissa.otel.replay.wire import Sender, detected_protocol
from tests.receivers import Receiver, Response, grpc_receiver, http_receiver

REQUEST: dict[str, Any] = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "0a" * 16, "name": "s"}]}]}]}
Ask = Callable[..., tuple[SendResult, Receiver]]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that are made; none of them takes any time."""
    made: list[float] = []
    monkeypatch.setattr(wire, "sleep", made.append)
    return made


@pytest.fixture
def ask() -> Ask:
    def asked(*script: Response, patience: float = 60, request: Any = REQUEST) -> tuple[SendResult, Receiver]:
        with http_receiver(*script) as receiver:
            settings = OtlpSettings.from_environment("traces", {}, endpoint=receiver.url, protocol="http/protobuf")
            sender = Sender(settings, patience)
            result = sender.send(request)
            sender.close()
        assert sender.requests == len(receiver.got)
        return result, receiver

    return asked


def test_a_line_is_posted_as_protobuf(ask: Ask) -> None:
    result, receiver = ask(Response())
    assert result == SendResult(Outcome.DELIVERED, status="200")
    (got,) = receiver.got
    assert (got.path, got.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
    assert got.body == message("traces", REQUEST).SerializeToString()
    assert b"\x0a" * 16 in got.body, "the id, which is hexadecimal in JSON"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_collector_is_asked_again_when_it_says_so(ask: Ask, pauses: list[float], status: int) -> None:
    result, receiver = ask(Response(status, {"Retry-After": "7"}), Response(status), Response(200), Response(200))
    assert result.outcome is Outcome.DELIVERED
    assert len(receiver.got) == 3
    assert pauses[0] == 7
    assert 1 < pauses[1] < 3  # the second pause of one's own is twice the first


def test_patience_ends(ask: Ask, pauses: list[float]) -> None:
    result, receiver = ask(Response(503), patience=0.5)
    assert (result.outcome, result.endpoint_fault) == (Outcome.RETRY, True)
    assert result.reason == "503 Service Unavailable; tried for 0.5 s"
    assert (len(receiver.got), pauses) == (1, [])


@pytest.mark.parametrize(
    ("status", "endpoint_fault"), [(400, False), (413, False), (500, False), (401, True), (404, True)]
)
def test_what_is_refused_is_not_asked_again(ask: Ask, status: int, *, endpoint_fault: bool) -> None:
    result, receiver = ask(Response(status, {"Content-Type": "text/plain"}, b"because  of\nthis"))
    assert (result.outcome, result.endpoint_fault) == (Outcome.REFUSED, endpoint_fault)
    assert "because of this" in result.reason
    assert len(receiver.got) == 1


def test_what_is_no_otlp_is_refused_without_being_sent(ask: Ask) -> None:
    result, receiver = ask(request={"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]})
    assert result.outcome is Outcome.REFUSED
    assert result.reason.startswith("it is no OTLP: ")
    assert receiver.got == []


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_protocol_of_an_endpoint_is_detected(protocol: str) -> None:
    with (grpc_receiver if protocol == "grpc" else http_receiver)() as receiver:
        assert detected_protocol(receiver.url) == protocol


def test_an_endpoint_where_nothing_answers_is_taken_for_grpc() -> None:
    assert detected_protocol("http://127.0.0.1:9") == "grpc"
    assert detected_protocol("127.0.0.1:9") == "grpc"


def test_a_lone_surrogate_costs_a_character_and_not_the_line(ask: Ask) -> None:
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "a\ud800b"}, {"name": "é😀"}]}]}]}
    result, receiver = ask(Response(), request=request)
    assert result.outcome is Outcome.DELIVERED
    spans = ExportTraceServiceRequest.FromString(receiver.got[0].body).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["a?b", "é😀"]
