"""A small training in an environment where only Nissa is installed, checked with its own test kit.

``python smoke.py files`` writes files, ``python smoke.py http/protobuf`` and ``python smoke.py grpc`` export to a receiver of this
process. The last line of the output is JSON: the releases that took part, and what was found.
"""

import gzip
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import torch

import nissa
from nissa.testing import Telemetry

STEPS = 3
PREFIX = "opentelemetry.proto.collector."
SERVICES = {"trace": "TraceService", "metrics": "MetricsService", "logs": "LogsService"}


def train(**settings: Any) -> "tuple[nissa.Run, list[float]]":
    """Train three steps beside a seed, and return the run and the norms of the gradients."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    norms = []
    with nissa.start("diagnostic", limits__validation_wait_seconds=30, **settings) as run:
        run.watch(model, optimizer)
        with run.epoch(0):
            for _ in range(STEPS):
                loss = model(torch.randn(8, 4)).square().mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                assert model.weight.grad is not None
                norms.append(model.weight.grad.double().norm().item())
                run.log_loss(loss)
                optimizer.step()
            run.validate(loss=loss, accuracy=0.5)
        seed = run.germinate("seed-1", blueprint="conv", slot="a")
        seed.advance("training")
        seed.cull(reason="no gain", improvement=-0.01)
    return run, norms


def files() -> None:
    """Train, and compare the files with what the training computed."""
    run, norms = train()
    assert run.directory is not None
    telemetry = Telemetry.from_folder(run.directory)
    telemetry.spans.named("epoch").one()
    assert telemetry.spans.named("seed").one().attributes["nissa.seed.cull_reason"] == "no gain"
    assert telemetry.logs.named("nissa.narrative").one().body
    found = telemetry.metrics.values("nissa.gradient.norm", {"nissa.parameter.name": "weight"})
    assert len(found) == STEPS
    assert all(abs(one - other) <= 1e-5 * other for one, other in zip(found, norms, strict=True))


def export(protocol: str) -> None:
    """Train, and check what a receiver gets."""
    received: dict[str, list[bytes]] = {name: [] for name in SERVICES}
    serve = _grpc if protocol == "grpc" else _http
    endpoint, stop = serve(received)
    os.environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    train()
    stop()
    everything = {name: b"".join(bodies) for name, bodies in received.items()}
    assert b"seed.training" in everything["trace"]
    assert b"nissa.gradient.norm" in everything["metrics"]
    assert b"nissa.narrative" in everything["logs"]


def _http(received: dict[str, list[bytes]]) -> tuple[str, Any]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            received[{"traces": "trace"}.get(name := Path(self.path).name, name)].append(plain)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", server.shutdown


def _grpc(received: dict[str, list[bytes]]) -> tuple[str, Any]:
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 - only for this protocol

    def handler(name: str) -> Any:
        def answer(request: bytes, _: Any) -> bytes:
            received[name].append(request)
            return b""

        return grpc.method_handlers_generic_handler(
            f"{PREFIX}{name}.v1.{SERVICES[name]}", {"Export": grpc.unary_unary_rpc_method_handler(answer)}
        )

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([handler(name) for name in SERVICES])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return f"http://127.0.0.1:{port}", lambda: server.stop(5).wait()


def main(mode: str) -> None:
    """Run one of the modes."""
    if mode == "files":
        files()
    else:
        export(mode)
    facts = {each.name: each.version for each in distributions()} | {"python": sys.version.split()[0]}
    print(json.dumps(facts | {"kernel": find_spec("nissa.kernels._native") is not None, "nissa at": nissa.__file__}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
