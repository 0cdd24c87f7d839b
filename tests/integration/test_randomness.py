"""Telemetry leaves every random number generator alone, whatever it exports and wherever to."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support import finish, only_run, script, spans

_TRAIN = """
    import random, sys
    import numpy as np
    import torch, nissa
    from nissa import GateResult, Stage
    from tests.toys import Toy

    random.seed(1); np.random.seed(2); torch.manual_seed(3)
    toy = Toy()

    def states():
        return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()

    before = states()
    run = nissa.start("research", limits__exit_timeout_seconds=3)
    run.watch(toy.model, toy.optimizer)
    seed = run.germinate("s", blueprint="b")
    for epoch in range(3):
        with run.epoch(epoch):
            for _ in range(10):
                loss = toy.step(run)
            run.validate(loss=loss, accuracy=0.5)
        seed.gate(GateResult("G1", passed=True))
        run.flush()
    seed.advance(Stage.TRAINING)
    faults = dict(run.hub.error_boundary.faults)
    run.close()
    assert not faults, faults
    assert states() == before
    print("unchanged")
"""


class _Collector(BaseHTTPRequestHandler):
    """Takes what it is sent; every second request is refused once, so that the exporter has to retry."""

    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        self.send_response(503 if self.requests % 2 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[HTTPServer]:
    _Collector.requests = 0
    server = HTTPServer(("127.0.0.1", 0), _Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def test_nothing_is_disturbed_while_exporting_to_files(tmp_path: Path) -> None:
    status, out, err = finish(script(_TRAIN, folder=tmp_path))
    assert (status, out.strip().splitlines()[-1]) == (0, "unchanged"), err
    assert len(spans(only_run(tmp_path))) > 30


def test_nothing_is_disturbed_while_exporting_and_retrying_over_http(tmp_path: Path, collector: HTTPServer) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    status, out, err = finish(script(_TRAIN, folder=tmp_path, environ=environ))
    assert (status, out.strip().splitlines()[-1]) == (0, "unchanged"), err
    assert _Collector.requests > 3
    assert not list((tmp_path / "nissa-runs").glob("*/*.jsonl"))


def test_nothing_is_disturbed_while_nobody_answers_over_grpc(tmp_path: Path) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
    status, out, err = finish(script(_TRAIN, folder=tmp_path, environ=environ))
    assert (status, out.strip().splitlines()[-1]) == (0, "unchanged"), err
