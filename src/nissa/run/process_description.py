"""Description of the process for people who compare runs: command line, commit, host, packages.

It is made on a thread of its own: files of a repository or of packages may lie on a network file system that hangs.
"""

import email.parser  # noqa: F401 - `version` imports it: a thread must not import while a process forks, which would lock it
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from nissa.events import EventType
from nissa.printable import printable_name
from nissa.run.command_line import own_command_line
from nissa.run.git_revision import revision_of
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from nissa.run.runtime import Runtime

PACKAGES: Final = (
    "nissa",
    "torch",
    "torchvision",
    "numpy",
    "triton",
    "lightning",
    "pytorch-lightning",
    "transformers",
    "accelerate",
    "datasets",
    "deepspeed",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp",
    "opentelemetry-instrumentation",
)
"""Distributions whose versions are recorded, where they are installed."""

_CPU_INFO: Final = Path("/proc/cpuinfo")
_CPU_INFO_BYTES: Final = 8_192

Facts = Mapping[str, Any]


class ProcessDescription:
    """Sends the description of this process once, from a thread of its own.

    Args:
        runtime: Components of the run.
    """

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._time = runtime.now()
        self._environ = dict(os.environ)
        self._folder = _working_directory()
        self._thread = threading.Thread(target=self._send, name="nissa-describe", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Wait until it is sent, at most ``timeout`` seconds: the end of a run is its last event."""
        self._thread.join(timeout)

    def _send(self) -> None:
        with self._runtime.error_boundary.guard("description of the process"):
            config = self._runtime.config.process
            found = dict(describe(self._folder, self._environ, command=config.command_line))
            if not self._runtime.closed:
                self._runtime.send(EventType.PROCESS_DESCRIBED, data={"attributes": found}, time_unix_nano=self._time)


def describe(folder: Path | None, environ: Mapping[str, str], *, command: bool) -> Iterator[tuple[str, Any]]:
    """Yield attributes of this process. What cannot be found out is left out.

    Args:
        folder: Working directory at the start of the run.
        environ: Environment variables at the start of the run.
        command: Whether the command line is included.
    """
    sources: list[Callable[[], Facts]] = [lambda: _program(folder), lambda: _revision(folder), _host, _packages]
    if command:
        sources.insert(0, lambda: {attr.COMMAND_ARGS: own_command_line(environ)})
    for source in sources:
        with suppress(OSError, ValueError, RuntimeError):
            yield from source().items()


def _program(folder: Path | None) -> Facts:
    return {
        attr.PROCESS_ID: os.getpid(),
        attr.RUNTIME_NAME: sys.implementation.name,
        attr.RUNTIME_VERSION: platform.python_version(),
        **({} if folder is None else {attr.WORKING_DIRECTORY: str(folder)}),
    }


def _host() -> Facts:
    return {
        attr.HOST_NAME: platform.node(),
        attr.OS_TYPE: platform.system().lower(),
        attr.OS_VERSION: platform.release(),
        attr.HOST_ARCH: platform.machine(),
        attr.CPU_NAME: _cpu_name() or platform.processor() or platform.machine(),
        attr.CPU_COUNT: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _cpu_name() -> str | None:
    """Return the name of the processor, where Linux knows it."""
    if not _CPU_INFO.exists():
        return None
    with _CPU_INFO.open(encoding="utf-8", errors="replace") as file:
        lines = file.read(_CPU_INFO_BYTES).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _revision(folder: Path | None) -> Facts:
    """Return the commit of the repository of the script, else of the working directory."""
    for place in (_script_folder(), folder):
        revision = None if place is None else revision_of(place)
        if revision is not None:
            branch = {} if revision.reference is None else {attr.VCS_REFERENCE: printable_name(revision.reference)}
            return {attr.VCS_REVISION: revision.commit, **branch}
    return {}


def _packages() -> Facts:
    found = {}
    for distribution, name in _distributions():
        with suppress(PackageNotFoundError):
            found[f"{attr.PACKAGE}.{name}"] = version(distribution)
    return found | ({} if torch.version.cuda is None else {f"{attr.PACKAGE}.cuda": torch.version.cuda})


def _distributions() -> Iterator[tuple[str, str]]:
    yield from ((name, name) for name in PACKAGES)
    if torch.version.cuda is not None:
        # torch.backends.cudnn.version() would load the library, which takes half a second.
        yield f"nvidia-cudnn-cu{torch.version.cuda.partition('.')[0]}", "cudnn"


def _script_folder() -> Path | None:
    """Return the folder of the script; None for code without a file."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute().parent if isinstance(file, str) else None


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None
