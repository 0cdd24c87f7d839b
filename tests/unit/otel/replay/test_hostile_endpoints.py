"""Endpoints that hang, drip, fail or answer nonsense, over real sockets: a replay ends, and says what was not sent."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from typer.testing import CliRunner

from nissa.cli.app import app
from nissa.otel.replay import Replayed, replay, wire
from tests import otlp
from tests.cases import for_each
from tests.hostile import is_safe
from tests.receivers import Response, http_receiver
from tests.unit.report.test_malformed import LINES

TRACE, OWN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Serve = Callable[[socket.socket], None]


def line(name: str = "s", **more: object) -> str:
    return otlp.spans(otlp.span(name, 1, 2, {}, trace=TRACE, own=OWN) | more)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    monkeypatch.setattr(wire, "_DETECTION_SECONDS", 0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return otlp.write(tmp_path / "r", traces=[line()], logs=[otlp.logs(otlp.record("e", 1, trace=TRACE))])


@contextmanager
def listening(serve: Serve) -> Iterator[str]:
    """Serve each connection on a thread of its own, and return the endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def hang(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def close(connection: socket.socket) -> None:
    connection.close()


def garbage(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(bytes(range(256)) * 10)


def drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        sleep(0.1)


def endless_body(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1\r\nx\r\n")
        sleep(0.1)


def cut_body(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")


def unsafe_reason(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 \x1b[2Jbad\x00\r\nContent-Length: 9\r\n\r\n\x1b[2J\nforg")


FAILING: list[Serve] = [hang, close, garbage, drip_headers, unsafe_reason]
UNREADABLE: list[Serve] = [endless_body, cut_body]
"""The status says that the request was accepted, and the rest of the answer cannot be read."""


def check(done: Replayed, seconds: float) -> None:
    assert seconds < 30  # far more than the waits above
    assert not done.complete
    for signal in ("traces", "logs"):
        told = done.signals[signal]
        assert (told.found, told.sent) == (1, 0)
        assert told.reasons
        assert all(map(is_safe, told.reasons))


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_replay_to_a_failing_endpoint_ends_with_a_reason(folder: Path, protocol: str) -> None:
    for serve in FAILING if protocol != "grpc" else FAILING + UNREADABLE:
        with listening(serve) as endpoint:
            began = monotonic()
            check(replay(folder, endpoint=endpoint, protocol=protocol, patience=0.2), monotonic() - began)


@for_each("serve", UNREADABLE, ids=lambda serve: serve.__name__)
def test_an_answer_that_is_not_complete_counts_by_its_status(serve: Serve, folder: Path) -> None:
    with listening(serve) as endpoint:
        assert replay(folder, endpoint=endpoint, protocol="http/protobuf", patience=0.2).complete


@for_each("serve", [hang, close, drip_headers], ids=lambda serve: serve.__name__)
def test_the_command_detects_no_protocol_there_and_ends_with_exit_code_1(serve: Serve, folder: Path) -> None:
    with listening(serve) as endpoint:
        done = CliRunner().invoke(app, ["replay", str(folder), "--endpoint", endpoint, "--patience", "0.2"])
    assert done.exit_code == 1, done.output
    assert "Not sent: 1 of 1 spans" in done.output


def test_an_endpoint_where_nothing_listens_is_a_reason(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    began = monotonic()
    check(replay(folder, endpoint=endpoint, protocol="http/protobuf", patience=0.2), monotonic() - began)


@for_each(
    "header", ["9" * 400, "-1", "²", "Thu, 99 Foo 2025", "Fri, 31 Dec 9999 23:59:59 GMT", "nan", "1e9", "x" * 5_000]
)
def test_a_nonsensical_pause_ends_the_replay(header: str, folder: Path) -> None:
    value = header.encode("latin-1", "replace").decode("latin-1")
    with http_receiver(Response(503, {"Retry-After": value})) as server:
        endpoint = server.url
        began = monotonic()
        check(replay(folder, endpoint=endpoint, protocol="http/protobuf", patience=0.2), monotonic() - began)


@for_each(
    "content",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"partialSuccess": 5}',
        b'{"partialSuccess": {"rejectedSpans": [], "rejectedLogRecords": {}}}',
        b'{"partialSuccess": {"rejectedSpans": "-5", "rejectedLogRecords": -5}}',
        b'{"partialSuccess": {"rejectedSpans": 1e400}}',
        b"\xff\xfe",
    ],
)
def test_a_nonsensical_answer_to_what_was_taken_is_not_a_failure(content: bytes, folder: Path) -> None:
    with http_receiver(Response(200, {"Content-Type": "application/json"}, content)) as server:
        done = replay(folder, endpoint=server.url, protocol="http/protobuf", patience=0.2)
    assert done.complete
    assert {name: each.sent for name, each in done.signals.items()} == {"traces": 1, "metrics": 0, "logs": 1}


def test_no_more_items_are_rejected_than_were_sent(folder: Path) -> None:
    content = json.dumps({"partialSuccess": {"rejectedSpans": 10**30, "errorMessage": "\x1b[2J" * 1_000}}).encode()
    with http_receiver(Response(200, {"Content-Type": "application/json"}, content), Response()) as server:
        done = replay(folder, endpoint=server.url, protocol="http/protobuf", patience=0.2)
    assert done.signals["traces"].sent == 0
    assert all(is_safe(reason) and len(reason) <= 500 for reason in done.signals["traces"].reasons)


def test_a_line_that_is_no_otlp_does_not_cost_its_neighbours(tmp_path: Path) -> None:
    folder = otlp.write(tmp_path, traces=[line("a"), line("b", startTimeUnixNano="yesterday"), line("c")])
    with http_receiver() as server:
        done = replay(folder, endpoint=server.url, protocol="http/protobuf", patience=0.2)
    (got,) = server.got
    spans = ExportTraceServiceRequest.FromString(got.body).resource_spans
    assert [span.name for each in spans for span in each.scope_spans[0].spans] == ["a", "c"]
    assert (done.signals["traces"].found, done.signals["traces"].sent) == (3, 2)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_malformed_lines_are_left_out_or_refused(tmp_path: Path, protocol: str) -> None:
    lines = [line(), *LINES, line()]
    folder = otlp.write(tmp_path, traces=lines, metrics=lines, logs=lines)
    counted = replay(folder, dry_run=True)
    assert counted.skipped
    with http_receiver() as server:
        endpoint = server.url
        done = replay(folder, endpoint=endpoint, protocol=protocol, patience=0)
    assert done.skipped == counted.skipped
    assert {name: each.found for name, each in done.signals.items()} == {
        name: each.found for name, each in counted.signals.items()
    }


@pytest.mark.parametrize("kind", ["fifo", "dangling", "loop", "folder"])
def test_an_entry_that_is_no_file_is_named_and_the_rest_is_sent(folder: Path, kind: str) -> None:
    path = folder / "metrics.jsonl"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere" if kind == "dangling" else path.name)
    with http_receiver() as server:
        done = replay(folder, endpoint=server.url, protocol="http/protobuf", patience=0)
    assert {name: each.sent for name, each in done.signals.items()} == {"traces": 1, "metrics": 0, "logs": 1}
    (skipped,) = done.skipped
    assert str(skipped).startswith("metrics.jsonl: it ")
    assert not done.complete


@for_each("path", ["x" * 5_000, "file", "file/r", "loop"])
def test_a_path_that_is_no_folder_is_one_error(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    here = tmp_path_factory.mktemp("here")
    (here / "file").touch()
    (here / "loop").symlink_to("loop")
    done = CliRunner().invoke(app, ["replay", str(here / path), "--dry-run"])
    assert "is no folder" in str(done.exception)
