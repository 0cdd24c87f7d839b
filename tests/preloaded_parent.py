"""The process behind `tests.preloaded`: imports PyTorch once and forks a process for each request.

Arguments: the number of the socket that requests come from, and ``bare`` where Nissa and OpenTelemetry are not imported.
"""

import atexit
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

PRELOADED = (
    "torch",
    "numpy",
    "pydantic",
    "pydantic_settings",
    "yaml",
    "rich.console",
    "rich.logging",
    "requests",
    "google.protobuf.json_format",
    "plotly",
    "psutil",
    "typer",
)
"""Modules that processes find imported."""
OURS = ("nissa", "nissa.run.start", "nissa.otel.setup", "nissa.otel.otlp.http_transport", "grpc")
"""Modules that they also find imported, unless they are bare. None starts a thread or registers a fork hook with a state."""


def main(number: int, *bare: str) -> None:
    """Fork a process for each request until the socket is closed."""
    _preload(() if bare else OURS)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the guardians
    with socket.socket(fileno=number) as requests:
        while (request := _receive(requests)) is not None:
            job, files = request
            if os.fork() == 0:
                requests.close()
                _guard(job, files)
                return
            for file in files:
                os.close(file)


def _preload(ours: Iterable[str]) -> None:
    for name in (*PRELOADED, *ours):
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    torch = sys.modules["torch"]
    torch.set_num_threads(1)
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])  # imports what a first optimizer needs
    tasks = Path("/proc/self/task")
    assert not tasks.exists() or len([*tasks.iterdir()]) == 1, "a thread does not survive a fork"


def _receive(requests: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next request and its files: standard input, output and errors, and the pipe for the exit status."""
    text, files, _, _ = socket.recv_fds(requests, 65536, 4)
    while text and not text.endswith(b"\n"):
        text += requests.recv(65536)
    return (json.loads(text), files) if text else None


def _guard(job: dict[str, Any], files: list[int]) -> None:
    """Fork the process, and report its id and its exit status. Only the process returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
    *streams, status = files
    child = os.fork()
    if child == 0:
        os.close(status)
        _become(job, streams)
        return
    for stream in streams:
        os.close(stream)
    try:
        os.write(status, f"{child}\n".encode())
        os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
    finally:
        os._exit(0)


def _become(job: dict[str, Any], streams: list[int]) -> None:
    """Run the code of a request as the main module, as ``python`` does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.stdout.reconfigure(write_through=bool(os.environ.get("PYTHONUNBUFFERED")))  # type: ignore[union-attr]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    main = sys.modules["__main__"] = ModuleType("__main__")
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    code, sys.argv, folder = _command(main, job["args"])
    sys.path.insert(0, folder)
    status = 0
    try:
        exec(code, main.__dict__)  # noqa: S102 - this is what the process is for
    except SystemExit as error:
        if job["unload"]:
            raise
        status = _status(error.code)
    if not job["unload"]:
        _exit(status)


def _status(code: object) -> int:
    """Return the exit status for the argument of ``sys.exit()``, and print a message, as an interpreter does."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _exit(status: int) -> None:
    """End as an interpreter does, without the most of a second for which it takes modules apart."""
    threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter does first at its end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _command(main: ModuleType, args: list[str]) -> tuple[CodeType, list[str], str]:
    """Return the code of a command line, its ``sys.argv``, and the folder that its imports begin at."""
    if args[0] == "-c":
        return compile(args[1], "<string>", "exec"), ["-c", *args[2:]], ""
    if args[0] == "-m":
        return _module(main, *args[1:])
    main.__file__ = args[0]
    return _compiled(args[0]), args, str(Path(args[0]).parent.absolute())


def _module(main: ModuleType, name: str, *arguments: str) -> tuple[CodeType, list[str], str]:
    main.__spec__ = spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    main.__file__, main.__package__ = spec.origin, spec.parent
    return _compiled(spec.origin), [spec.origin, *arguments], ""


def _compiled(path: str) -> CodeType:
    return compile(Path(path).read_text(), path, "exec")


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    main(int(sys.argv[1]), *sys.argv[2:])
