"""Environments of their own, in which distributions of this checkout are installed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support import ROOT

SMOKE = Path(__file__).with_name("smoke.py")
_PYTHONS = (Path.home() / ".pyenv" / "versions", Path("/opt/hostedtoolcache/Python"))
"""Folders with further releases of Python, by version."""
_FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


def sources(folder: Path) -> Path:
    """Copy the files that are in version control, as they are in the working tree, and return the folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def python_of(version: str) -> Path | None:
    """Return the Python of a version, such as ``"3.13"``, None if this machine has none; nothing is downloaded."""
    patterns = (f"{version}", f"{version}.*")
    managed = (
        each for root in _PYTHONS for pattern in patterns for each in root.glob(f"{pattern}/bin/python{version}")
    )
    found = next(managed, None)
    return found or (Path(path) if (path := shutil.which(f"python{version}")) is not None else None)


def uv(*arguments: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Run uv and return its output; a failure shows its messages."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which("uv", path=path)
    assert found is not None
    return run(found, *arguments, cwd=cwd, variables=variables).stdout


def run(
    *command: str | Path, cwd: Path = ROOT, status: int = 0, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Run a program without the variables of this environment, and check its exit status."""
    environ = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env={**environ, **variables}, capture_output=True, text=True, check=False, timeout=1_500
    )
    assert done.returncode == status, done.stdout[-8_000:] + done.stderr[-4_000:]
    return done


def build(source: Path, into: Path, *kinds: str, **variables: str) -> Path:
    """Build a wheel, an sdist, or both (a wheel from the sdist) with the setuptools of this environment; return their folder."""
    # Without isolation, no network is needed. The tests that install the sdist build it in isolation.
    how = ("--no-build-isolation", "--offline", "--python", sys.executable)
    uv("build", *kinds, *how, "--out-dir", into, source, cwd=source, **variables)
    return into


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Args:
        folder: Its folder.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, python: str | Path = sys.executable) -> "Environment":
        """Create an empty one, by default with this Python."""
        uv("venv", "--python", python, folder)
        return cls(folder)

    def install(self, *arguments: str | Path) -> None:
        """Install packages."""
        uv("pip", "install", "--python", self.program("python"), *arguments)

    def program(self, name: str) -> Path:
        """Return the path of a program."""
        return self.folder / "bin" / name

    def smoke(self, mode: str, folder: Path) -> tuple[dict[str, Any], str]:
        """Run `smoke`, and return its facts and its standard error."""
        # Isolated from the folder of the script and from the working directory: only what is installed can be imported.
        done = run(self.program("python"), "-P", SMOKE, mode, cwd=folder)
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return facts, done.stderr
