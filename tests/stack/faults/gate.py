"""Gate in front of a collector's OTLP/HTTP port: it passes requests on, or answers them as a broken receiver does."""

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from scripts.stack import Stack
from scripts.stack_settings import LOOPBACK

Answer = Callable[["_Handler", bytes], None]
_SLOW_SECONDS = 3.0


class Gate:
    """What the gate does, and what it has refused.

    Attributes:
        answer: Answers a request; `forward` passes it on.
        refused: Items per signal that the receiver said it does not take.
    """

    def __init__(self, stack: Stack) -> None:
        self.port_behind = stack.ports.otlp_http
        self.answer: Answer = forward
        self.refused: Counter[str] = Counter()
        self.requests = 0
        self.address = ""


class _Server(ThreadingHTTPServer):
    gate: Gate
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.gate.requests += 1
        self.server.gate.answer(self, body)

    def respond(self, status: int, body: bytes = b"", kind: str = "application/x-protobuf", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _passed(handler: _Handler, body: bytes) -> tuple[int, bytes]:
    connection = HTTPConnection(LOOPBACK, handler.server.gate.port_behind, timeout=30)
    try:
        connection.request("POST", handler.path, body, {**handler.headers, "Content-Length": str(len(body))})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def forward(handler: _Handler, body: bytes) -> None:
    """Pass the request on."""
    handler.respond(*_passed(handler, body))


def too_many(handler: _Handler, _body: bytes) -> None:
    """Ask for a pause."""
    handler.respond(429, Retry_After="1")


def unavailable(handler: _Handler, _body: bytes) -> None:
    """Be out of order."""
    handler.respond(503)


def slow(handler: _Handler, body: bytes) -> None:
    """Pass the request on after a while."""
    sleep(_SLOW_SECONDS)
    forward(handler, body)


def garbage(handler: _Handler, _body: bytes) -> None:
    """Answer with a web page, and every other time with what is not HTTP at all."""
    if handler.server.gate.requests % 2:
        handler.respond(200, b"<html>Please log in", "text/html")
    else:
        handler.wfile.write(b"\x00\xff" * 400)
        handler.close_connection = True


def partial(handler: _Handler, body: bytes) -> None:
    """Pass all but one log record on, and say so."""
    if not handler.path.endswith("/logs"):
        forward(handler, body)
        return
    zipped = handler.headers.get("Content-Encoding") == "gzip"
    request = ExportLogsServiceRequest.FromString(gzip.decompress(body) if zipped else body)
    del request.resource_logs[0].scope_logs[0].log_records[0]
    rest = request.SerializeToString()
    status, _ = _passed(handler, gzip.compress(rest) if zipped else rest)
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = 1
    response.partial_success.error_message = "so says the test"
    handler.server.gate.refused["logs"] += 1
    handler.respond(status, response.SerializeToString())


@contextmanager
def gate(stack: Stack) -> Iterator[Gate]:
    """Yield an open gate in front of the collector."""
    found = Gate(stack)
    with _Server((LOOPBACK, 0), _Handler) as server:
        server.gate = found
        found.address = f"http://{LOOPBACK}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
