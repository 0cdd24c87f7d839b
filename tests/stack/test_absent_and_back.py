"""A collector that is killed and comes back while training goes on: the lifecycle of meanwhile arrives too."""

import os
import textwrap
from pathlib import Path
from typing import IO
from uuid import uuid4

import pytest

from nissa.semconv import attributes as attr
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests import preloaded
from tests.stack.queries import fetch, tags
from tests.support import until

_TRAIN = """
    import sys
    import nissa

    with nissa.start("standard", console__enabled=False) as run:
        for line in sys.stdin:
            if line.strip():
                run.germinate(line.strip(), blueprint="conv").cull(reason="test")
            print(run.flush(2), flush=True)
"""
_QUICK = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_BLRP_SCHEDULE_DELAY": "200"}


@pytest.fixture
def service() -> str:
    return f"test-{uuid4().hex[:12]}"


def _start(folder: Path, endpoint: str, protocol: str, service: str) -> preloaded.Process:
    path = folder / "train.py"
    path.write_text(textwrap.dedent(_TRAIN))
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    environ = {**os.environ, **_QUICK, **named, "OTEL_SERVICE_NAME": service}
    return preloaded.start([path], cwd=folder, env=environ)


def _grow(process: preloaded.Process, seed: str = "") -> bool:
    """Let the process grow a seed, and flush; whether all reached the collector."""
    pipes: tuple[IO[str] | None, IO[str] | None] = (process.stdin, process.stdout)
    write, read = pipes
    assert write is not None
    assert read is not None
    write.write(f"{seed}\n")
    write.flush()
    return read.readline() == "True\n"


def _lives(stack: Stack, service: str) -> list[str]:
    """Return the seeds whose whole life Jaeger knows, one for each time that it knows it."""
    traces = fetch(f"{stack.jaeger}/api/traces", service=service, limit=100)["data"] or []
    roots = [span for trace in traces for span in trace["spans"] if span["operationName"] == names.SEED]
    return sorted(tags(span)[attr.SEED_ID] for span in roots)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_what_happened_meanwhile_arrives_when_the_collector_is_back(
    own_stack: Stack, tmp_path: Path, service: str, protocol: str
) -> None:
    endpoint = own_stack.otlp_grpc if protocol == "grpc" else own_stack.otlp_http
    process = _start(tmp_path, endpoint, protocol, service)
    try:
        assert _grow(process, "before")
        until(lambda: _lives(own_stack, service) == ["before"], "the first life")
        own_stack.kill("collector")
        # Several failures each, so that the SDK by itself would have given up what it had.
        assert not any(_grow(process, seed) for seed in ("meanwhile-1", "meanwhile-2", "meanwhile-3"))
        own_stack.start_one("collector")
        _grow(process, "afterwards")
        until(lambda: _grow(process), "an export that arrives", 60)  # gRPC takes its time to connect again
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    grown = {"before", "meanwhile-1", "meanwhile-2", "meanwhile-3", "afterwards"}
    until(lambda: grown <= set(_lives(own_stack, service)), "the whole life of every seed")
    away, back = err.splitlines()
    assert "Training goes on" in away or "Training is not affected" in away
    assert "answers again" in back
