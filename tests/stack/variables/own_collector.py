"""A real collector of one test's own: it keeps what arrives in files, and says by which door it came."""

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from nissa.recordings.values import attributes
from nissa.testing import Point, Span
from scripts.stack_build import binary, build, go
from scripts.stack_processes import answers
from scripts.stack_settings import LOOPBACK
from tests.support import lines, points, records, spans, until

SIGNALS = ("traces", "metrics", "logs")
DOORS = ("plain", "tls", "mtls")
"""Receivers: in clear, with a certificate, and with one that asks for the client's."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on now."""
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    found: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


class OwnCollector:
    """What arrived at a collector, by door and signal.

    Args:
        folder: Where its files are.
        grpc: Ports for OTLP over gRPC by door.
        http: Ports for OTLP over HTTP by door.
    """

    def __init__(self, folder: Path, grpc: Mapping[str, int], http: Mapping[str, int]) -> None:
        self.folder = folder
        self.grpc, self.http = dict(grpc), dict(http)

    def endpoint(self, door: str = "plain", protocol: str = "grpc") -> str:
        """Return where a door is, for ``grpc`` or ``http``."""
        port = (self.grpc if protocol == "grpc" else self.http)[door]
        return f"{'http' if door == 'plain' else 'https'}://localhost:{port}"

    def requests(self, signal: str, door: str = "plain") -> list[Any]:
        """Return the messages of a signal."""
        path = self.folder / f"{door}-{signal}.jsonl"
        return lines(path) if path.exists() else []

    def resources(self, signal: str, door: str = "plain") -> list[dict[str, Any]]:
        """Return the attributes of the resource of each message of a signal."""
        key = {"traces": "resourceSpans", "metrics": "resourceMetrics", "logs": "resourceLogs"}[signal]
        return [attributes(each["resource"]) for line in self.requests(signal, door) for each in line[key]]

    def spans(self, door: str = "plain") -> list[Span]:
        """Return the spans."""
        return spans(self.folder, f"{door}-traces.jsonl")

    def points(self, metric: str | None = None, door: str = "plain") -> list[Point]:
        """Return the points of a metric, or all of them."""
        return points(self.folder, metric, f"{door}-metrics.jsonl")

    def records(self, door: str = "plain") -> list[dict[str, Any]]:
        """Return the log records."""
        return records(self.folder, f"{door}-logs.jsonl")

    def arrived(self) -> set[tuple[str, str]]:
        """Return which signals arrived by which door."""
        return {(signal, door) for door in DOORS for signal in SIGNALS if self.requests(signal, door)}


@contextmanager
def own_collector(folder: Path, certificates: Path | None = None) -> Iterator[OwnCollector]:
    """Run a collector with as many doors as there are certificates for; at the end all that arrived is in the files."""
    program = binary("collector")
    if not program.exists():
        if go() is None:
            pytest.skip("no collector: there is no go command to build it with")
        build("collector", Console(stderr=True))
    doors = DOORS[: 1 if certificates is None else 3]
    health, *free = free_ports(1 + 2 * len(doors))
    ports = free[: len(doors)], free[len(doors) :]
    found = OwnCollector(folder, dict(zip(doors, ports[0], strict=True)), dict(zip(doors, ports[1], strict=True)))
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(_config(found, health, certificates)))
    with (folder / "log").open("wb") as log, subprocess.Popen([program, f"--config={config}"], stderr=log) as process:
        try:
            until(lambda: process.poll() is not None or answers(health, "/"), "the collector")
            assert process.poll() is None, (folder / "log").read_text()
            yield found
        finally:
            process.terminate()
            process.wait(30)


def _config(found: OwnCollector, health: int, certificates: Path | None) -> dict[str, Any]:
    return {
        "receivers": {f"otlp/{door}": {"protocols": _protocols(found, door, certificates)} for door in found.grpc},
        "processors": {
            "resource": {
                "attributes": [
                    {"key": f"header.{name}", "from_context": f"metadata.{name}", "action": "insert"}
                    for name in ("x-team", "x-token", "user-agent")
                ]
            }
        },
        "exporters": {
            f"file/{door}-{signal}": {"path": str(found.folder / f"{door}-{signal}.jsonl"), "flush_interval": "50ms"}
            for door in found.grpc
            for signal in SIGNALS
        },
        "extensions": {"health_check": {"endpoint": f"{LOOPBACK}:{health}"}},
        "service": {
            "extensions": ["health_check"],
            "pipelines": {
                f"{signal}/{door}": {
                    "receivers": [f"otlp/{door}"],
                    "processors": ["resource"],
                    "exporters": [f"file/{door}-{signal}"],
                }
                for door in found.grpc
                for signal in SIGNALS
            },
            "telemetry": {"metrics": {"level": "none"}},
        },
    }


def _protocols(found: OwnCollector, door: str, certificates: Path | None) -> dict[str, Any]:
    tls: dict[str, Any] = {}
    if door != "plain":
        tls = {"tls": {"cert_file": f"{certificates}/server.pem", "key_file": f"{certificates}/server.key"}}
    if door == "mtls":
        tls["tls"]["client_ca_file"] = f"{certificates}/ca.pem"
    ports = {"grpc": found.grpc[door], "http": found.http[door]}
    return {name: {"endpoint": f"{LOOPBACK}:{port}", "include_metadata": True, **tls} for name, port in ports.items()}
