"""Collectors that are of no use, each on a real socket, and a training that is not to notice."""

import os
import socket
import textwrap
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]  # it comes without

from tests import preloaded
from tests.support import ROOT

PROTOCOLS = ("grpc", "http/protobuf")
TRAIN = """
    import atexit, sys, threading, time

    atexit.register(lambda: print(time.monotonic(), flush=True))  # the first that is registered is the last called
    import torch
    import nissa
    from tests.toys import Toy
    from nissa.otel.otlp.client import OtlpClient

    exporting = set()

    def spied(kind, name):
        original = getattr(kind, name)
        def spy(*args, **kwargs):
            exporting.add(threading.get_ident())
            return original(*args, **kwargs)
        setattr(kind, name, spy)

    spied(OtlpClient, "send")

    def train(run=None, seconds=0.0):
        toy = Toy()
        if run is not None:
            run.watch(toy.model, toy.optimizer)
        for _ in range(10):
            loss = toy.step(run)
            time.sleep(seconds / 10)
        return loss.item()

    alone = train()
"""
_RUN = """
    with nissa.start("standard", console__enabled=False) as run:
        run.germinate("seed-1", blueprint="conv").cull(reason="test")
        with run.epoch(0):
            watched = train(run, float(sys.argv[1]))
        ended = time.monotonic()
    print(watched == alone, bool(exporting), threading.get_ident() in exporting, ended, flush=True)
"""


class Told(NamedTuple):
    """What a training process left behind."""

    status: int
    out: list[str]
    err: list[str]
    exited: float


def run(
    folder: Path,
    endpoint: str,
    protocol: str,
    *,
    seconds: float = 0.0,
    body: str = _RUN,
    environ: Mapping[str, str] | None = None,
) -> Told:
    """Train in a process that exports to an endpoint, and wait for its exit."""
    path = folder / "train.py"
    path.write_text(textwrap.dedent(TRAIN) + textwrap.dedent(body))
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        # What would wait for an exporter waits for longer than a busy machine takes for anything.
        "OTEL_EXPORTER_OTLP_TIMEOUT": "100",
        "OMP_NUM_THREADS": "1",
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **told, **(environ or {})}
    child = preloaded.start([path, str(seconds)], cwd=folder, env=environment, unload=True)
    with child, ThreadPoolExecutor(1) as reader:  # the pipes may fill, and the exit is what is timed
        said = reader.submit(child.communicate, timeout=120)
        status = child.wait(timeout=120)
        exited = monotonic()
        out, err = said.result()
    return Told(status, out.split(), err.splitlines(), exited)


@contextmanager
def collector(kind: str, protocol: str) -> Iterator[str]:
    """Yield the endpoint of a collector that is ``nowhere``, ``silent``, ``unknown``, or answers with a status."""
    if kind == "unknown":
        yield "http://no-such-collector.invalid:4317"
    elif kind in {"nowhere", "silent"}:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            if kind == "silent":
                server.listen(16)  # the kernel accepts, and nobody ever answers
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
    elif protocol == "grpc":
        with _grpc(grpc.StatusCode[kind]) as port:
            yield f"http://127.0.0.1:{port}"
    else:
        with _http({"UNAVAILABLE": 503, "UNAUTHENTICATED": 401, "INVALID_ARGUMENT": 400}[kind]) as port:
            yield f"http://127.0.0.1:{port}"


@contextmanager
def _grpc(code: grpc.StatusCode) -> Iterator[int]:
    class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(code, "so says the test"))

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextmanager
def _http(status: int) -> Iterator[int]:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status, "so says the test")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
