"""Build the servers from Go modules, once per machine.

The binaries are stored in the cache folder, under a hash of their sources.
"""

import fcntl
import hashlib
import platform
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from scripts.stack_settings import CONFIG, StackError, cache


@dataclass(frozen=True, slots=True)
class Source:
    """Sources of a server.

    Args:
        folder: Its folder in ``collector-config/servers``, with the module files.
        packages: What to compile.
        flags: Flags of ``go build``, besides those that all have.
        minutes: Build time on two cores, for a message.
    """

    folder: str
    packages: tuple[str, ...]
    flags: tuple[str, ...] = ()
    minutes: int = 1


SOURCES: Final = {
    "collector": Source("otelcol", (".",), minutes=2),
    "prometheus": Source(
        "prometheus",
        ("github.com/prometheus/prometheus/cmd/prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
        ("-tags", "remove_all_sd"),  # nothing is discovered, so no cloud's client is compiled
        minutes=3,
    ),
    "jaeger": Source("jaeger", ("github.com/jaegertracing/jaeger/cmd/jaeger",), minutes=5),
}
_FLAGS: Final = ("-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w")
_BINARIES: Final = {"collector": "otelcol", "prometheus": "prometheus", "jaeger": "jaeger", "promtool": "promtool"}
_OWNERS: Final = {"promtool": "prometheus"}


def go() -> str | None:
    """Return the Go toolchain, if there is one."""
    return shutil.which("go")


def binary(name: str) -> Path:
    """Return the path of the binary of a server or of ``promtool``, built or not."""
    return _target(_OWNERS.get(name, name)) / _BINARIES[name]


def missing() -> list[str]:
    """Return the servers that are not built yet."""
    return [name for name in SOURCES if not _target(name).is_dir()]


def build(name: str, console: Console) -> None:
    """Build a server if it is missing; a second builder waits for the first."""
    target = _target(name)
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_suffix(".lock")):
        if not target.is_dir():
            _compile(SOURCES[name], target, console)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that is released at the latest when the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _target(name: str) -> Path:
    source = SOURCES[name]
    files = sorted(
        path for path in (CONFIG / "servers" / source.folder).iterdir() if path.name.startswith(("go.", "main."))
    )
    parts = [path.read_bytes() for path in files]
    parts += [repr((source.packages, source.flags, _FLAGS, platform.system(), platform.machine())).encode()]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return cache() / "servers" / f"{name}-{digest[:16]}"


def _compile(source: Source, target: Path, console: Console) -> None:
    tool = go()
    if tool is None:
        raise StackError("The servers are built with Go, and there is none: install Go, or start a Docker engine.")
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder, _progress(console) as progress:
        task = progress.add_task(f"building {source.folder} (about {source.minutes} min, once)", total=None, now="")
        command = [tool, "build", "-v", *_FLAGS, *source.flags, "-o", f"{folder}/bin/", *source.packages]
        Path(folder, "bin").mkdir()
        _follow(command, source, progress, task)
        Path(folder, "bin").rename(target)


def _follow(command: list[str], source: Source, progress: Progress, task: TaskID) -> None:
    output: deque[str] = deque(maxlen=30)
    with subprocess.Popen(  # noqa: S603 - the command is ours
        command, cwd=CONFIG / "servers" / source.folder, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr or ():
            output.append(line)
            progress.update(task, now=line.strip()[-60:])
    if process.returncode:
        raise StackError(f"{source.folder} could not be built:\n{''.join(output)}")


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[now]}"),
        console=console,
    )
