"""Run the servers with Docker Compose."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from scripts.stack_processes import answers
from scripts.stack_settings import ROOT, SERVERS, Ports, StackError

FILE: Final = ROOT / "docker-compose.yml"


def why_not() -> str | None:
    """Return the reason why Docker cannot be used, or None."""
    tool = shutil.which("docker")
    if tool is None:
        return "there is no docker command"
    try:
        if _run(tool, "info", timeout=15).returncode:
            return "no Docker engine answers"
        if _run(tool, "compose", "version", timeout=15).returncode:
            return "docker has no compose"
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer in time"
    return None


class Containers:
    """The servers of one stack.

    Args:
        project: Name of the Compose project.
        ports: What is published.
        settings: Further variables of ``otel-collector.yaml``.
        services: What to start; the servers that they need start as well.
    """

    name = "docker"

    def __init__(self, project: str, ports: Ports, settings: Mapping[str, str], services: tuple[str, ...]) -> None:
        self.project = project
        self.ports = ports
        self.services = services
        self._variables = {**ports.variables(), **settings}

    def start(self) -> None:
        """Start the servers that do not run, and wait until all are healthy."""
        self.compose("up", "--detach", "--build", "--wait", *self.services)

    def start_one(self, name: str) -> None:
        """Start one server, and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--no-deps", name)

    def kill(self, name: str) -> None:
        """End a server at once, without a chance to save anything."""
        self.compose("kill", name)

    def pause(self, name: str) -> None:
        """Stop a server from running, while its connections stay open."""
        self.compose("pause", name)

    def resume(self, name: str) -> None:
        """Let a paused server go on."""
        self.compose("unpause", name)

    def stop(self) -> None:
        """Remove the containers; the volumes stay."""
        self.compose("down")

    def clean(self) -> None:
        """Remove the containers and the volumes."""
        self.compose("down", "--volumes")

    def taken(self) -> list[str]:
        """Return the variables of the ports that are in use."""
        return self.ports.taken(without=("jaeger_otlp", "jaeger_grpc", "jaeger_health"))

    def running(self) -> bool:
        """Return whether any server runs."""
        return bool(self.compose("ps", "--quiet").strip())

    def alive(self, name: str) -> bool:
        """Return whether a server runs."""
        return bool(self.compose("ps", "--quiet", name).strip())

    def healthy(self, name: str) -> bool:
        """Return what the server says of itself, or of what lies behind its health."""
        port, path = {
            "collector": (self.ports.collector_health, "/"),
            "prometheus": (self.ports.prometheus, "/-/ready"),
            "jaeger": (self.ports.jaeger, "/api/services"),
        }[name]
        return answers(port, path)

    def describe(self, name: str) -> str:
        """Return a server's container, in words."""
        return f"container {self.project}-{name}-1"

    def compose(self, *arguments: str) -> str:
        """Call Docker Compose and return its output."""
        tool = shutil.which("docker") or "docker"
        command = ("compose", "--file", str(FILE), "--project-name", self.project, *arguments)
        done = _run(tool, *command, variables=self._variables)
        if done.returncode:
            raise StackError(f"docker {' '.join(command)} failed:\n{done.stderr}")
        return done.stdout


def build() -> None:
    """Fetch the images and build the collector's."""
    containers = Containers("nissa", Ports.usual(), {}, SERVERS)
    containers.compose("pull", "--ignore-buildable")
    containers.compose("build")


def _run(
    tool: str, *arguments: str, variables: Mapping[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the command is ours
        [tool, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **(variables or {})},
    )
