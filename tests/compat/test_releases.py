"""The compat modules with the oldest and the newest releases that the project declares, in environments of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

_TOOLS = (
    "pytest>=8.3",
    "hypothesis>=6.100",
    "sybil>=9",
    "pytest-timeout>=2.3",
    "opentelemetry-instrumentation>=0.66b0",
)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("resolution", "version"), [("lowest-direct", "2.8."), ("highest", "")])
def test_the_compat_modules_work_with(tmp_path: Path, resolution: str, version: str) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv is not None
    python = tmp_path / "venv" / "bin" / "python"
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
        return done.stdout

    run(uv, "venv", "--python", sys.executable, tmp_path / "venv")
    run(uv, "pip", "install", "--python", python, "--resolution", resolution, "--prerelease", "allow", ROOT, *_TOOLS)
    assert run(python, "-c", "import torch; print(torch.__version__)").startswith(version)
    tests = [f"tests/compat/test_{name}.py" for name in ("torch", "opentelemetry")]
    out = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert " passed" in out
    assert "skipped" not in out
