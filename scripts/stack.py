"""Run the collector, Prometheus and Jaeger: in containers if a Docker engine is available, else as processes.

``python -m scripts.stack up`` starts them, ``down`` ends them. Both ways use the same configuration files.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from rich.console import Console

from scripts import stack_docker
from scripts.stack_build import build, go, missing
from scripts.stack_docker import Containers
from scripts.stack_processes import Processes
from scripts.stack_settings import LOOPBACK, SERVERS, Ports, StackError, cache
from scripts.stack_validate import validate

HOME: Final = cache() / "stack"
"""Folder of the stack that the commands handle."""
TRIES: Final = 3
"""Number of attempts to start, because another process may take a port that was free."""


def unavailable() -> str | None:
    """Return the reason why no stack can run on this machine, or None."""
    reason = stack_docker.why_not()
    return f"{reason}, and there is no go command" if reason and go() is None else None


class Stack:
    """The three servers, together.

    Args:
        folder: Where data, logs and the state file go.
        ports: Where they listen; free ones if absent.
        docker: Whether to use Docker; absent: where an engine answers.
        grafana: Whether to start Grafana as well, which only Docker does.
        settings: Further variables of ``otel-collector.yaml``.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports | None = None,
        *,
        docker: bool | None = None,
        grafana: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.docker = stack_docker.why_not() is None if docker is None else docker
        self._services = (*SERVERS, "grafana") if grafana else SERVERS
        self._settings = dict(settings or {})
        self._fixed = ports is not None
        self._use(ports or Ports.free())

    def _use(self, ports: Ports) -> None:
        self.ports = ports
        if self.docker:
            self.servers: Containers | Processes = Containers(
                _project(self.folder), ports, self._settings, self._services
            )
        else:
            self.servers = Processes(self.folder, ports, self._settings)

    def start(self, console: Console | None = None) -> None:
        """Build what is missing, start the servers and wait until they are healthy."""
        if not self.docker:
            for name in missing():
                build(name, console or Console(stderr=True))
        for left in reversed(range(1 if self._fixed else TRIES)):
            try:
                self.servers.start()
            except StackError:
                self.stop()
                if not left:
                    raise
                self._use(Ports.free())
            else:
                return

    def stop(self) -> None:
        """End the servers; their data stays in the folder or in the volumes."""
        self.servers.stop()

    def clean(self) -> None:
        """End the servers and delete their data."""
        self.servers.clean()

    def kill(self, name: str) -> None:
        """End ``collector``, ``prometheus`` or ``jaeger`` at once."""
        self.servers.kill(name)

    def start_one(self, name: str) -> None:
        """Start one of them again."""
        self.servers.start_one(name)

    def pause(self, name: str) -> None:
        """Stop a server from running, while its connections stay open; `resume` lets it go on."""
        self.servers.pause(name)

    def resume(self, name: str) -> None:
        """Let a paused server go on."""
        self.servers.resume(name)

    def healthy(self) -> bool:
        """Return whether all servers report that they are healthy."""
        return all(self.servers.healthy(name) for name in SERVERS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def otlp_grpc(self) -> str:
        """Endpoint for OTLP over gRPC."""
        return f"http://{LOOPBACK}:{self.ports.otlp_grpc}"

    @property
    def otlp_http(self) -> str:
        """Endpoint for OTLP over HTTP."""
        return f"http://{LOOPBACK}:{self.ports.otlp_http}"

    @property
    def prometheus(self) -> str:
        """Prometheus' API, and with Docker its page."""
        return f"http://{LOOPBACK}:{self.ports.prometheus}"

    @property
    def jaeger(self) -> str:
        """Jaeger's API, and with Docker its page."""
        return f"http://{LOOPBACK}:{self.ports.jaeger}"

    @property
    def health(self) -> str:
        """The collector's health."""
        return f"http://{LOOPBACK}:{self.ports.collector_health}"

    @property
    def grafana(self) -> str:
        """Grafana's page, with Docker."""
        return f"http://{LOOPBACK}:{self.ports.grafana}"


def _project(folder: Path) -> str:
    return "nissa" if folder == HOME else f"nissa-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def _up(stack: Stack, console: Console) -> int:
    if not stack.servers.running():
        if taken := stack.servers.taken():
            raise StackError(f"The ports of {', '.join(taken)} are in use; set others in .env or the environment.")
        if not stack.docker:
            console.print(f"Without Docker: {stack_docker.why_not() or '--processes was passed'}.")
    stack.start(console)
    return _status(stack, console)


def _down(stack: Stack, console: Console) -> int:
    if stack.servers.running():
        stack.stop()
        console.print("The stack has ended; its data is kept.")
    else:
        console.print("No server was running.")
    return 0


def _status(stack: Stack, console: Console) -> int:
    for name in SERVERS:
        alive = stack.servers.alive(name)
        state = "healthy" if stack.servers.healthy(name) else "running" if alive else "down"
        _print_line(console, f"{name:11} {state:8} {stack.servers.describe(name) if alive else ''}".rstrip())
    if not stack.servers.running():
        return 1
    for name, address in _addresses(stack).items():
        _print_line(console, f"{name:11} {address}")
    exporters = " ".join(f"OTEL_{signal}_EXPORTER=otlp" for signal in ("TRACES", "METRICS", "LOGS"))
    _print_line(console, f"Send to it: export OTEL_EXPORTER_OTLP_ENDPOINT={stack.otlp_grpc} {exporters}")
    return 0 if stack.healthy() else 1


def _addresses(stack: Stack) -> dict[str, str | Path]:
    return {
        "OTLP gRPC": stack.otlp_grpc,
        "OTLP HTTP": stack.otlp_http,
        "Prometheus": stack.prometheus,
        "Jaeger": stack.jaeger,
        **({"Grafana": stack.grafana} if stack.docker else {"files": stack.folder}),
    }


def _print_line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clean(stack: Stack, console: Console) -> int:
    stack.clean()
    console.print("The stack has ended, and its data is deleted.")
    return 0


def _build(stack: Stack, console: Console) -> int:
    if stack.docker:
        stack_docker.build()
    else:
        for name in missing():
            build(name, console)
    console.print("Everything is built.")
    return 0


COMMANDS: Final = {
    "up": (_up, "start the servers and print their addresses"),
    "down": (_down, "end the servers that up started"),
    "status": (_status, "print the state and address of each server"),
    "clean": (_clean, "end the servers and delete their data"),
    "build": (_build, "build or fetch the servers, once per machine"),
    "validate": (validate, "check the configuration files with the servers"),
}


def main(arguments: Sequence[str]) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.stack", description=__doc__)
    parser.add_argument("--processes", action="store_true", help="do not use Docker even if it is available")
    parser.add_argument(
        "--optional", action="store_true", help="succeed with a message if neither Docker nor Go is available"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, description) in COMMANDS.items():
        commands.add_parser(name, help=description)
    options = parser.parse_args(arguments)
    console = Console()
    if options.command != "validate" and (reason := unavailable()):
        console.print(f"No stack on this machine: {reason}.")
        return 0 if options.optional else 1
    processes = options.processes or Processes(HOME, Ports.usual(), {}).running()
    stack = Stack(HOME, Ports.usual(), docker=False if processes else None, grafana=True)
    try:
        return COMMANDS[options.command][0](stack, console)
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
