"""Real trainers in processes of their own, and the ways in which they send to the collector."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, Final
from uuid import uuid4

from scripts.stack import Stack
from scripts.stack_build import locked
from tests import preloaded
from tests.stack.queries import Past

_EXPECTED: Final = ("Refused ", "Rejected ", "Further ")
"""How warnings begin that a trainer provokes."""
_TRAINERS: Final = Path(__file__).parent / "trainers"


@dataclass(frozen=True, slots=True)
class Transport:
    """How telemetry leaves a process.

    Args:
        protocol: As ``OTEL_EXPORTER_OTLP_PROTOCOL`` has it.
        temporality: As ``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`` has it.
    """

    protocol: str
    temporality: str

    def __str__(self) -> str:
        """Return a name for a test."""
        return f"{self.protocol.partition('/')[0]}-{self.temporality}"


TRANSPORTS: Final = (Transport("grpc", "cumulative"), Transport("http/protobuf", "delta"))


def environment(stack: Stack, transport: Transport, service: str) -> dict[str, str]:
    """Return the environment of a process that sends to the collector, and has nothing else from the caller's shell."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NISSA_", "OTEL_"))}
    return inherited | {
        "OMP_NUM_THREADS": "1",
        "NISSA_RUN_ID": service,
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_grpc if transport.protocol == "grpc" else stack.otlp_http,
        "OTEL_EXPORTER_OTLP_PROTOCOL": transport.protocol,
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": transport.temporality,
    }


def service_name(what: str) -> str:
    """Return a name that no other test uses."""
    return f"{what}-{uuid4().hex[:8]}"


def start(trainer: str, folder: Path, environ: Mapping[str, str], *arguments: str) -> preloaded.Process:
    """Start a trainer in a folder."""
    return preloaded.start([_TRAINERS / f"{trainer}.py", *arguments], cwd=folder, env=environ)


def train(trainer: str, folder: Path, environ: Mapping[str, str], *arguments: str, timeout: float = 120) -> Any:
    """Run a trainer to its end and return what it printed."""
    process = start(trainer, folder, environ, *arguments)
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    unexpected = [line for line in err.splitlines() if not line.startswith(_EXPECTED)]
    assert not unexpected, err  # nothing was contained, and everything could be exported
    return json.loads(out) if out else None


@dataclass(frozen=True, slots=True)
class Made:
    """Something that was made once.

    Args:
        told: What it said of itself.
        past: Prometheus at its end. Its processes had ended, so that none of their samples is younger.
    """

    told: Any
    past: Past


def once(folder: Path, stack: Stack, name: str, make: Callable[[], Any]) -> Made:
    """Return what the first who asked has made; the workers of a test run ask the same servers, some much later."""
    kept = folder / f"{name}-{stack.ports.otlp_grpc}.json"
    with locked(kept.with_suffix(".lock")):
        if not kept.exists():
            told = make()
            kept.write_text(json.dumps([told, time()]))
    told, ended = json.loads(kept.read_text())
    return Made(told, Past(stack, ended))
