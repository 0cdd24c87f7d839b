"""Receivers of OTLP on the loopback interface, plain or with TLS, that record requests and answer as a test scripts it."""

import gzip
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no types of its own

LOOPBACK = "127.0.0.1"


@dataclass
class Received:
    """A request as it arrived.

    Attributes:
        path: Path and query, or the gRPC method.
        headers: Headers or metadata by lower-case name.
        body: The body as sent; for gRPC decompressed.
        client: Name in the client's certificate.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    client: str | None = None
    connection: Any = None

    @property
    def plain(self) -> bytes:
        """Body after decompression."""
        match self.headers.get("content-encoding"):
            case "gzip":
                return gzip.decompress(self.body)
            case "deflate":
                return zlib.decompress(self.body)
            case _:
                return self.body


@dataclass
class Response:
    """An answer; for gRPC ``status`` is a code and ``headers`` the trailing metadata.

    Args:
        drop: Close the connection instead.
        wait: Seconds before the answer.
        drip: Seconds between the bytes of the body.
    """

    status: Any = 200
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""
    details: str = ""
    drop: bool = False
    wait: float = 0.0
    drip: float = 0.0


@dataclass
class Receiver:
    """What a receiver got, and what it answers: the responses in order, then the last one again."""

    scheme: str
    port: int = 0
    host: str = LOOPBACK
    script: list[Response] = field(default_factory=list)
    got: list[Received] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def next(self) -> Response:
        if not self.script:
            return Response()
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@dataclass(frozen=True)
class Tls:
    """TLS of a receiver, with files as `tests.stack.certificates` writes them.

    Args:
        mutual: Require a client certificate.
    """

    folder: Path
    mutual: bool = False

    def context(self) -> ssl.SSLContext:
        found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        found.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        if self.mutual:
            found.verify_mode = ssl.CERT_REQUIRED
            found.load_verify_locations(self.folder / "ca.pem")
        return found

    def credentials(self) -> Any:
        pair = (self.folder / "server.key").read_bytes(), (self.folder / "server.pem").read_bytes()
        authority = (self.folder / "ca.pem").read_bytes() if self.mutual else None
        return grpc.ssl_server_credentials([pair], authority, self.mutual)


class _Server(ThreadingHTTPServer):
    receiver: Receiver
    context: ssl.SSLContext | None = None
    request_queue_size = 64

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handshake on the thread of the connection, so that a failed one does not end the server."""
        try:
            if self.context is not None:
                request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except OSError:
            request.close()

    def handle_error(self, *_: Any) -> None:
        """Print nothing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 20

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.got.append(
            Received(self.path, headers, body, _name_in_certificate(self.connection), self.client_address)
        )
        self._answer(receiver.next(), receiver.over)

    def do_CONNECT(self) -> None:
        self.server.receiver.got.append(Received(self.path, dict(self.headers.items()), b""))
        self.send_error(502)

    def _answer(self, response: Response, over: Event) -> None:
        over.wait(response.wait)
        if response.drop:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(response.status)
        headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Length": str(len(response.body)),
            **response.headers,
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not response.drip:
            self.wfile.write(response.body)
            return
        for byte in response.body:
            self.wfile.write(bytes([byte]))
            if over.wait(response.drip):
                return

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def _name_in_certificate(connection: Any) -> str | None:
    certificate: Any = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    return str(certificate["subjectAltName"][0][1]) if certificate else None


@contextmanager
def http_receiver(*script: Response, tls: Tls | None = None) -> Iterator[Receiver]:
    """Yield a receiver over HTTP."""
    with _Server((LOOPBACK, 0), _Handler) as server:
        found = Receiver("https" if tls else "http", server.server_port, script=list(script))
        server.receiver, server.context = found, tls.context() if tls else None
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            found.over.set()
            server.shutdown()
            thread.join()


@contextmanager
def grpc_receiver(
    *script: Response, tls: Tls | None = None, port: int = 0, options: tuple[tuple[str, int], ...] = ()
) -> Iterator[Receiver]:
    """Yield a receiver over gRPC; requests are recorded as bytes."""
    found = Receiver("https" if tls else "http", script=list(script))

    def export(path: str, request: bytes, context: Any) -> bytes:
        metadata = {name.lower(): value for name, value in context.invocation_metadata()}
        names = context.auth_context().get("x509_subject_alternative_name", [])
        client = names[0].decode() if names else None
        found.got.append(Received(path, metadata, request, client, context.peer()))
        response = found.next()
        found.over.wait(response.wait)
        if response.status != 200:
            context.set_trailing_metadata(tuple(response.headers.items()))
            context.abort(response.status, response.details)
        return response.body

    class AnyMethod(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
        def service(self, call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(partial(export, call.method))

    server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0), *options))
    server.add_generic_rpc_handlers((AnyMethod(),))
    address = f"{LOOPBACK}:{port}"
    found.port = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    server.start()
    try:
        yield found
    finally:
        found.over.set()
        server.stop(0).wait()


@contextmanager
def relay(receiver: Receiver) -> Iterator[tuple[int, list[int]]]:
    """Yield the port of a TCP relay to a receiver, and the numbers of bytes that passed towards it."""
    passed: list[int] = []

    def copy(source: socket.socket, target: socket.socket, counts: list[int]) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                counts.append(len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def join(near: socket.socket) -> None:
        with near, socket.create_connection((LOOPBACK, receiver.port)) as far:
            back = Thread(target=copy, args=(far, near, []), daemon=True)
            back.start()
            copy(near, far, passed)
            back.join(10)

    def accept() -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:  # The listening socket was closed.
                return
            threads.append(Thread(target=join, args=(near,), daemon=True))
            threads[-1].start()

    threads: list[Thread] = []
    with socket.create_server((LOOPBACK, 0)) as listening:
        accepting = Thread(target=accept, daemon=True)
        accepting.start()
        yield listening.getsockname()[1], passed
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join(10)
    for thread in threads:
        thread.join(10)
