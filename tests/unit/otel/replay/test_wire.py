"""What a sender makes of the answers of a server that says what it is told to."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from nissa.otel.export.ways import HTTP
from nissa.otel.replay import wire
from nissa.otel.replay.wire import Answer, Sender, Verdict

Scripted = tuple[int, dict[str, str], bytes]
REQUEST: dict[str, Any] = {"resourceSpans": []}


class Server(HTTPServer):
    """Answers as it is told, and keeps what it got."""

    script: list[Scripted]
    got: list[tuple[str, str, bytes]]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:  # the name that http.server looks for
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers["Content-Type"], body))
        status, headers, content = self.server.script.pop(0)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(*script: Scripted) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as server:
        server.script, server.got = list(script), []
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that are made; none of them takes any time."""
    made: list[float] = []
    monkeypatch.setattr(wire, "sleep", made.append)
    return made


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Answer, Server]]:
    def asked(*script: Scripted, patience: float = 60) -> tuple[Answer, Server]:
        with serving(*script) as server:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            sender = Sender("traces", HTTP, patience)
            answer = sender.send(REQUEST, b'{"resourceSpans": [] }')
            sender.close()
        assert sender.requests == len(server.got)
        return answer, server

    return asked


Ask = Callable[..., tuple[Answer, Server]]


def test_a_line_is_posted_as_it_stands(ask: Ask) -> None:
    answer, server = ask((200, {}, b"{}"))
    assert answer == Answer(Verdict.TAKEN)
    assert server.got == [("/v1/traces", "application/json", b'{"resourceSpans": [] }')]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_collector_is_asked_again_when_it_says_so(ask: Ask, pauses: list[float], status: int) -> None:
    answer, server = ask((status, {"Retry-After": "7"}, b""), (status, {}, b""), (200, {}, b""))
    assert answer.verdict is Verdict.TAKEN
    assert len(server.got) == 3
    assert pauses[0] == 7
    assert 1 < pauses[1] < 3  # the second pause of one's own is twice the first


def test_patience_ends(ask: Ask, pauses: list[float]) -> None:
    answer, server = ask((503, {}, b""), patience=0.5)
    assert answer.verdict is Verdict.HOPELESS
    assert "503" in answer.reason
    assert (len(server.got), pauses) == (1, [])


@pytest.mark.parametrize(
    ("status", "verdict"), [(400, "REFUSED"), (413, "REFUSED"), (500, "REFUSED"), (401, "HOPELESS"), (404, "HOPELESS")]
)
def test_what_is_refused_is_not_asked_again(ask: Ask, status: int, verdict: str) -> None:
    answer, server = ask((status, {}, b"because  of\nthis"))
    assert answer.verdict is Verdict[verdict]
    assert "because of this" in answer.reason
    assert len(server.got) == 1


def test_items_that_were_rejected_of_a_request_that_was_taken_are_counted(ask: Ask) -> None:
    partial = {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old"}}
    answer, _ = ask((200, {"Content-Type": "application/json"}, json.dumps(partial).encode()))
    assert answer == Answer(Verdict.TAKEN, "too old", 3)
