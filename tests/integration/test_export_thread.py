"""Threads of the export while training runs: they import nothing and format no traceback, whatever a collector answers."""

import json
from pathlib import Path

import pytest

from tests.receivers import Response, http_receiver
from tests.support import finish, script

_TRAIN = """
    import json, sys, threading, time, traceback
    import torch, nissa
    from nissa import Stage
    from tests.toys import Toy

    done, toy = [], Toy()

    def here():
        return threading.current_thread().name.startswith("nissa-")

    def audit(event, arguments):
        if event == "import" and here():
            done.append(f"{threading.current_thread().name} imports {arguments[0]}")

    def spied(original):
        def spy(*arguments, **named):
            if here():
                done.append(f"{threading.current_thread().name} formats a traceback")
            return original(*arguments, **named)
        return spy

    sys.addaudithook(audit)
    for name in ("format_exception", "print_exception", "format_exc"):
        setattr(traceback, name, spied(getattr(traceback, name)))
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        done.clear()
        for epoch in range(3):
            with run.epoch(epoch):
                seed = run.germinate(f"seed-{epoch}", blueprint="conv", slot="r0c0")
                seed.advance(Stage.TRAINING)
                for _ in range(10):
                    toy.step(run)
                run.validate(loss=1.0, accuracy=0.5)
                seed.cull(reason="no gain")
            run.flush(1)
            time.sleep(0.7)
        print(json.dumps(done))
"""
_ANSWERS = [
    Response(503, body=b"out of order"),
    Response(429, {"Retry-After": "0"}),
    Response(400, {"Content-Type": "application/x-protobuf"}, b"\x12\x04what"),
    Response(200, {"Content-Type": "text/html"}, b"<html>"),
    Response(drop=True),
    Response(),
]


@pytest.mark.parametrize("kind", ["grpc, nobody", "http, nobody", "http, answers", "files"])
def test_the_export_threads_import_nothing_and_format_no_traceback(tmp_path: Path, kind: str) -> None:
    with http_receiver(*_ANSWERS * 3) as receiver:
        endpoint = receiver.url if kind.endswith("answers") else "http://127.0.0.1:9"
        protocol = "grpc" if kind.startswith("grpc") else "http/protobuf"
        sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        status, out, err = finish(script(_TRAIN, folder=tmp_path, environ={} if kind == "files" else sent, bare=True))
        assert len(receiver.got) >= (len(_ANSWERS) if kind.endswith("answers") else 0)
    assert status == 0, err
    assert json.loads(out.splitlines()[-1]) == []
