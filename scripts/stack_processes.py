"""Run the servers as processes on the loopback address."""

import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from scripts.stack_build import binary
from scripts.stack_settings import CONFIG, LOOPBACK, SERVERS, Ports, StackError

PATIENCE: Final = 30.0
"""Seconds that a server has to become healthy, or to end."""


class Processes:
    """The servers of one stack.

    Args:
        folder: Where their data, their logs and the state file go.
        ports: Where they listen.
        settings: Further variables of ``otel-collector.yaml``.
    """

    name = "processes"

    def __init__(self, folder: Path, ports: Ports, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.ports = ports
        self.settings = settings
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._state = folder / "processes.json"

    def start(self) -> None:
        """Start the servers that do not run, and wait until all are healthy."""
        for name in SERVERS:
            if not self.alive(name):
                self._spawn(name)
        for name in SERVERS:
            self._await(lambda name=name: self.healthy(name), name)  # type: ignore[misc]

    def start_one(self, name: str) -> None:
        """Start one server, and wait until it is healthy."""
        self._spawn(name)
        self._await(lambda: self.healthy(name), name)

    def kill(self, name: str) -> None:
        """End a server at once, without a chance to save anything."""
        self._end(name, signal.SIGKILL)

    def pause(self, name: str) -> None:
        """Stop a server from running, while its connections stay open."""
        os.kill(self._pids()[name][0], signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused server go on."""
        os.kill(self._pids()[name][0], signal.SIGCONT)

    def stop(self) -> None:
        """End exactly the processes that were started here; their data stays."""
        for name in reversed(SERVERS):
            self._end(name, signal.SIGTERM)

    def clean(self) -> None:
        """End the processes and delete their data and logs."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def taken(self) -> list[str]:
        """Return the variables of the ports that are in use."""
        return self.ports.taken(without=("grafana",))

    def running(self) -> bool:
        """Return whether any server runs."""
        return any(self.alive(name) for name in SERVERS)

    def alive(self, name: str) -> bool:
        """Return whether a server runs."""
        child = self._children.get(name)
        if child is not None:
            return child.poll() is None
        pid, born = self._pids().get(name, (0, ""))
        return bool(pid) and _birth(pid) == born

    def healthy(self, name: str) -> bool:
        """Return what the server says of itself."""
        port, path = {
            "collector": (self.ports.collector_health, "/"),
            "prometheus": (self.ports.prometheus, "/-/ready"),
            "jaeger": (self.ports.jaeger_health, "/status"),
        }[name]
        return answers(port, path)

    def describe(self, name: str) -> str:
        """Return a server's process and memory, in words."""
        pid, _ = self._pids().get(name, (0, ""))
        memory = _resident(pid) if self.alive(name) else None
        return f"pid {pid}" + (f", {memory} MiB" if memory else "")

    def _spawn(self, name: str) -> None:
        data = self.folder / name
        data.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - the command is ours
                self._command(name, data),
                cwd=data,
                env=self._environment(data),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that an interrupted terminal leaves it to us to end it
            )
        self._children[name] = child
        self._remember({**self._pids(), name: (child.pid, _birth(child.pid) or "")})

    def _command(self, name: str, data: Path) -> list[str]:
        flags = {
            "collector": [f"--config={CONFIG / 'otel-collector.yaml'}"],
            "jaeger": [f"--config={CONFIG / 'jaeger.yaml'}"],
            "prometheus": [
                f"--config.file={CONFIG / 'prometheus.yaml'}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={LOOPBACK}:{self.ports.prometheus}",
                "--web.enable-otlp-receiver",
                "--enable-feature=exemplar-storage,otlp-deltatocumulative",
            ],
        }
        return [str(binary(name)), *flags[name]]

    def _environment(self, data: Path) -> dict[str, str]:
        at = {name: f"{LOOPBACK}:{getattr(self.ports, name)}" for name in Ports.__slots__}
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(data),
            "COLLECTOR_OTLP_GRPC": at["otlp_grpc"],
            "COLLECTOR_OTLP_HTTP": at["otlp_http"],
            "COLLECTOR_HEALTH": at["collector_health"],
            "COLLECTOR_STORAGE": str(data),
            "PROMETHEUS_URL": f"http://{at['prometheus']}",
            "JAEGER_OTLP": at["jaeger_otlp"],
            "JAEGER_HTTP": at["jaeger"],
            "JAEGER_GRPC": at["jaeger_grpc"],
            "JAEGER_HEALTH": at["jaeger_health"],
            "JAEGER_STORAGE": str(data),
            **self.settings,
        }

    def _await(self, ready: Callable[[], bool], name: str) -> None:
        deadline = monotonic() + PATIENCE
        while not ready():
            if not self.alive(name) or monotonic() > deadline:
                raise StackError(f"{name} did not become healthy; the end of its log:\n{self._tail(name)}")
            sleep(0.05)

    def _end(self, name: str, how: signal.Signals) -> None:
        pid, _ = self._pids().get(name, (0, ""))
        deadline = monotonic() + PATIENCE
        while self.alive(name):
            os.kill(pid, signal.SIGKILL if monotonic() > deadline else how)
            _pause(lambda: self.alive(name))
        self._children.pop(name, None)
        self._remember({other: known for other, known in self._pids().items() if other != name})

    def _tail(self, name: str) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:])

    def _pids(self) -> dict[str, tuple[int, str]]:
        if not self._state.exists():
            return {}
        return {name: (pid, born) for name, (pid, born) in json.loads(self._state.read_text()).items()}

    def _remember(self, pids: Mapping[str, tuple[int, str]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps(pids))
        new.replace(self._state)


def answers(port: int, path: str) -> bool:
    """Return whether a server on the loopback address responds with status 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _pause(still: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = monotonic() + seconds
    while still() and monotonic() < deadline:
        sleep(0.02)


def _birth(pid: int) -> str | None:
    """Return the start time of a process, which identifies it if its id is reused; None if it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _birth_elsewhere(pid)
    return None if state in "ZX" else rest[18]


def _birth_elsewhere(pid: int) -> str | None:
    tool = shutil.which("ps")
    if tool is None:
        raise StackError("There is neither /proc nor ps, so processes cannot be identified.")
    result = subprocess.run(  # noqa: S603 - the command is ours
        [tool, "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None


def _resident(pid: int) -> int | None:
    """Return the resident memory of a process in MiB, if it can be read."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), None)
