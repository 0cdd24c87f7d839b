"""Python processes forked from one that has imported PyTorch and Nissa.

The imports and a first optimizer take several seconds of a core. A test that needs a process, but not a fresh
interpreter, starts it here: the process runs a script, a module or code in its own folder and environment, and ends as
interpreters do, with `atexit` and signals.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from select import select
from threading import Lock
from typing import IO, Any, Self

_PARENT = Path(__file__).with_name("preloaded_parent.py")
_READ_AT_IMPORT = {
    "OTEL_PROPAGATORS",
    "OTEL_PYTHON_CONTEXT",
    "GRPC_VERBOSITY",
    "GRPC_TRACE",
    "GRPC_ENABLE_FORK_SUPPORT",
}
"""Variables that OpenTelemetry and gRPC read at import."""
START_SECONDS = 120
"""Longest time for the imports of the parent."""


class Process:
    """A forked process. Its interface is the part of `subprocess.Popen` that tests use, and means the same."""

    def __init__(self, args: Sequence[str], status: IO[str], pipes: "Mapping[str, IO[str]]") -> None:
        self.args = [*args]
        self.stdin, self.stdout, self.stderr = (pipes.get(name) for name in ("stdin", "stdout", "stderr"))
        self.returncode: int | None = None
        self._status = status
        self._reading = Lock()
        _await(status, START_SECONDS, self.args)
        self.pid = int(status.readline())

    def poll(self) -> int | None:
        """Return the exit status, the negative number of a signal, or None while it runs."""
        if self._reading.acquire(blocking=False):  # a thread that waits sets it otherwise
            with suppress(subprocess.TimeoutExpired):
                self._read(0)
            self._reading.release()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status."""
        if not self._reading.acquire(timeout=-1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        try:
            return self._read(timeout)
        finally:
            self._reading.release()

    def _read(self, timeout: float | None) -> int:
        if self.returncode is None:
            _await(self._status, timeout, self.args)
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Close its standard input, read its output to the end and wait for it."""
        if self.stdin is not None:
            self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            # A thread of its own for each, so that neither pipe fills while the other is read.
            out, err = pool.submit(_rest, self.stdout), pool.submit(_rest, self.stderr)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return out.result(), err.result()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def start(
    args: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    unload: bool = False,
    bare: bool = False,
) -> Process:
    """Start a process.

    Args:
        args: As they follow ``python`` on a command line: a script, ``-m module`` or ``-c code``, and its arguments.
        cwd: Its working directory; by default the caller's.
        env: All of its environment; by default the caller's.
        output: A file for its output and errors. By default each is a pipe.
        unload: Whether the interpreter takes its modules apart at a regular end, which takes most of a second. Functions
            that are registered with `atexit` are called in any case.
        bare: Fork from a process that has not imported Nissa and OpenTelemetry. So is a process whose environment has a
            variable that OpenTelemetry reads at import.
    """
    environ = {**(os.environ if env is None else env)}
    job = {
        "args": [os.fspath(each) for each in args],
        "cwd": os.fspath(cwd or Path.cwd()),
        "env": environ,
        "unload": unload,
    }
    return _parent(bare or not _READ_AT_IMPORT.isdisjoint(environ)).start(job, output)


def run(
    args: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    unload: bool = False,
    bare: bool = False,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a process, as `start` does, to its end and return its exit status and output."""
    with start(args, cwd=cwd, env=env, unload=unload, bare=bare) as process:
        out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def _rest(stream: IO[str] | None) -> str:
    """Read a stream to its end and close it."""
    if stream is None or stream.closed:
        return ""
    with stream:
        return stream.read()


def _await(status: IO[str], timeout: float | None, args: Sequence[str]) -> None:
    if not select([status], [], [], timeout)[0]:
        raise subprocess.TimeoutExpired(args, timeout or 0.0)


@cache
def _parent(bare: bool) -> "_Parent":
    found = _Parent(["bare"] if bare else [])
    atexit.register(found.close)
    return found


class _Parent:
    """The process that forks the others. It ends when its socket is closed."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._lock = Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(_PARENT), str(theirs.fileno()), *arguments],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that Ctrl-C reaches the tests alone
            )

    def start(self, job: dict[str, Any], output: IO[bytes] | None) -> Process:
        pipes = {} if output else {name: os.pipe() for name in ("stdin", "stdout", "stderr")}
        status, theirs = os.pipe()
        if output:
            null = os.open(os.devnull, os.O_RDONLY)
            given, unused = [null, output.fileno(), output.fileno(), theirs], [null, theirs]
        else:
            unused = given = [pipes["stdin"][0], pipes["stdout"][1], pipes["stderr"][1], theirs]
        try:
            self._send(job, given)
        finally:
            for number in unused:
                os.close(number)
        ours = {"stdin": os.fdopen(pipes["stdin"][1], "w")} if pipes else {}
        ours |= {name: os.fdopen(pipes[name][0]) for name in ("stdout", "stderr") if pipes}
        return Process(job["args"], os.fdopen(status), ours)

    def _send(self, job: dict[str, Any], files: list[int]) -> None:
        request = json.dumps(job).encode() + b"\n"
        with self._lock:
            sent = socket.send_fds(self._socket, [request], files)
            self._socket.sendall(request[sent:])

    def close(self) -> None:
        self._socket.close()
        self._process.wait()
