"""Validate the configuration files with the servers themselves, and list those that were not checked."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console

from scripts.stack_build import binary
from scripts.stack_docker import FILE, why_not
from scripts.stack_settings import CONFIG, ROOT

_RULE_TESTS: Final = sorted((ROOT / "dashboards" / "rules" / "tests").glob("*.yaml"))
CHECKS: Final = {
    "otel-collector.yaml": ("collector", ("validate", f"--config={CONFIG / 'otel-collector.yaml'}")),
    "jaeger.yaml": ("jaeger", ("validate", f"--config={CONFIG / 'jaeger.yaml'}")),
    "prometheus.yaml": ("promtool", ("check", "config", str(CONFIG / "prometheus.yaml"))),
    "dashboards/rules": ("promtool", ("test", "rules", *map(str, _RULE_TESTS))),
}


def validate(_: object, console: Console) -> int:
    """Check all files that can be checked on this machine; return 1 if a server rejects its file."""
    results = [_validate(file, console) for file in (*CHECKS, FILE.name)]
    return 1 if False in results else 0


def _validate(file: str, console: Console) -> bool | None:
    command = _command(file)
    if isinstance(command, str):
        console.print(f"skipped  {file}: {command}", markup=False, highlight=False)
        return None
    with TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - the command is ours
            command, capture_output=True, text=True, check=False, env={"COLLECTOR_STORAGE": folder, "HOME": folder}
        )
    good = done.returncode == 0
    console.print(f"{'valid' if good else 'INVALID':8} {file}", markup=False, highlight=False)
    if not good:
        console.print(done.stdout + done.stderr, markup=False, highlight=False)
    return good


def _command(file: str) -> Sequence[str | Path] | str:
    """Return the command that checks a file, or the reason why there is none."""
    if file == FILE.name:
        return why_not() or [shutil.which("docker") or "docker", "compose", "--file", str(FILE), "config", "--quiet"]
    name, arguments = CHECKS[file]
    path = binary(name)
    return [path, *arguments] if path.exists() else f"{path.name} has not been built"
